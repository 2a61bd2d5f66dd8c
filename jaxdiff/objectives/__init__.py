"""Objectives other than denoising: pure functions of arrays that tasks add up to a loss."""
