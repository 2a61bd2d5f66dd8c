"""scheduler_config.json of diffusers, class by class.

`fields` knows what each takes, `placing` where it calls the network, `process` what a process is, `classes` what the
fields mean.
"""
