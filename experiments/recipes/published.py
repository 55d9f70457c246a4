"""Results of the literature, by experiment."""

from experiments.recipes.recipe import Published

GERMAIN = "Germain et al. 2015"
PAPAMAKARIOS = "Papamakarios et al. 2017"
DURKAN = "Durkan et al. 2019"
THESIS = "the thesis that introduced the HAF"


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mnist-made-gaussian": (
        Published(-1380.8, PAPAMAKARIOS, 4.8),
        Published(-1379.97, THESIS, 1.79),
    ),
    "mnist-realnvp": (
        Published(-1323.2, PAPAMAKARIOS, 6.6),
        Published(-1310.13, THESIS, 4.54),
    ),
    "mnist-maf": (Published(-1300.5, PAPAMAKARIOS, 1.7), Published(-1296.09, THESIS, 3.62)),
    "mnist-haf-550": (Published(-1292.91, THESIS, 2.57),),
    "mnist-haf-700": (Published(-1297.64, THESIS, 4.14),),
    "hepmass-made-gaussian": (
        Published(-20.98, PAPAMAKARIOS, 0.02),
        Published(-22.40, THESIS, 0.05),
    ),
    "hepmass-realnvp": (
        Published(-19.62, PAPAMAKARIOS, 0.02),
        Published(-17.80, THESIS, 0.05),
    ),
    "hepmass-maf": (Published(-17.70, PAPAMAKARIOS, 0.02), Published(-18.80, THESIS, 0.07)),
    "hepmass-haf-256": (Published(-19.18, THESIS, 0.04),),
    "hepmass-haf-350": (Published(-19.64, THESIS, 0.05),),
    "bsds300-made-gaussian": (Published(148.85, PAPAMAKARIOS),),
    "bsds300-realnvp": (Published(152.97, PAPAMAKARIOS),),
    "bsds300-maf": (Published(155.69, PAPAMAKARIOS),),
    "bsds300-nsf": (Published(157.31, DURKAN),),
    "power-made-gaussian": (Published(-3.08, PAPAMAKARIOS),),
    "power-realnvp": (Published(-0.02, PAPAMAKARIOS),),
    "power-maf": (Published(0.14, PAPAMAKARIOS),),
    "gas-made-gaussian": (Published(3.56, PAPAMAKARIOS),),
    "gas-realnvp": (Published(4.78, PAPAMAKARIOS),),
    "gas-maf": (Published(9.07, PAPAMAKARIOS),),
    "miniboone-made-gaussian": (Published(-15.59, PAPAMAKARIOS),),
    "miniboone-realnvp": (Published(-13.55, PAPAMAKARIOS),),
    "miniboone-maf": (Published(-11.75, PAPAMAKARIOS),),
}
