"""The processes and objectives of published models, by name: what recipes start from, and tests train.

Numbers that a config leaves out are those of the papers too. `dataclasses.replace` changes some.
"""

from jaxdiff.diffusion.process import ProcessConfig

PUBLISHED: dict[str, ProcessConfig] = {
    # Ho et al. 2020, arXiv 2006.11239
    "ddpm": ProcessConfig(schedule="linear", times="steps", variance="large"),
    # Nichol & Dhariwal 2021, arXiv 2102.09672
    "improved_ddpm": ProcessConfig(schedule="cosine", steps=4000, times="steps", variance="learned"),
    "improved_ddpm_importance": ProcessConfig(schedule="cosine", steps=4000, times="importance", variance="learned"),
    # Song & Ermon 2019, arXiv 1907.05600
    "ncsn": ProcessConfig(
        schedule="ve", sigma_max=1.0, times="steps", steps=10, prediction="score", weight="snr", clip=None
    ),
    # Song et al. 2021, arXiv 2011.13456
    "score_sde_ve": ProcessConfig(schedule="ve", prediction="score", weight="snr"),
    "score_sde_vp": ProcessConfig(schedule="vp", prediction="eps"),
    "score_sde_sub_vp": ProcessConfig(schedule="sub_vp", prediction="eps"),
    # Kingma et al. 2021, arXiv 2107.00630
    "vdm": ProcessConfig(objective="bound", schedule="learned"),
    # Karras et al. 2022, arXiv 2206.00364
    "edm": ProcessConfig(schedule="edm", prediction="edm", weight="edm", times="log_normal"),
    # Lipman et al. 2023, arXiv 2210.02747; Tong et al. 2023, arXiv 2302.00482; Esser et al. 2024, arXiv 2403.03206
    "flow_matching": ProcessConfig(schedule="flow", prediction="flow"),
    "flow_matching_ot": ProcessConfig(schedule="flow", prediction="flow", coupling="optimal_transport"),
    "rectified_flow": ProcessConfig(schedule="flow", prediction="flow", times="logit_normal"),
    # Hoogeboom et al. 2023, arXiv 2301.11093
    "simple_diffusion": ProcessConfig(schedule="shifted_cosine", prediction="v", weight="snr"),
    # Lin et al. 2023, arXiv 2305.08891
    "zero_terminal_v": ProcessConfig(schedule="scaled_linear", zero_terminal=True, prediction="v", times="steps"),
    # Song & Dhariwal 2023, arXiv 2310.14189; Song et al. 2023, arXiv 2303.01469
    "consistency_training": ProcessConfig(
        objective="consistency_training", schedule="edm", prediction="edm", times="log_normal"
    ),
    "consistency_distillation": ProcessConfig(
        objective="consistency_distillation", schedule="edm", prediction="edm", target="average"
    ),
    # Salimans & Ho 2022, arXiv 2202.00512
    "progressive": ProcessConfig(objective="progressive", prediction="v", weight="truncated_snr"),
}
