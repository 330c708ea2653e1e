"""Draw the pictures of README from a recorded store and a denoiser (needs matplotlib).

python runs/pictures.py gradients runs/both.zarr runs/pictures/gradients.png
python runs/pictures.py samples zoo:sportballs32/ddpm runs/pictures/samples.png
"""

import sys

import matplotlib as mpl
import numpy as np
import xarray as xr

mpl.use("Agg")
import matplotlib.pyplot as plt

CELLS = (
    {"classifier": "robust", "classifier_input": "x_t", "stabilizer": "none"},
    {"classifier": "non_robust", "classifier_input": "x_t", "stabilizer": "none"},
)
SAMPLE = 1


def gradients(store: str, out: str) -> None:
    """x_t, x0-hat and the gradient of one sample along t, for two cells that share their noise."""
    ds = xr.open_zarr(store).isel(guidance_scale=-1, sample=SAMPLE)
    steps = np.linspace(0, ds.sizes["timestep"] - 1, 9).round().astype(int)
    names = ("x_t", "pred_original_sample", "gradient")
    target = ds.attrs["classes"][int(ds["label"])]
    figure = plt.figure(figsize=(11, 8), layout="constrained")
    figure.suptitle(f"Guided towards {target}, same noise (gradients: channel mean, each map with its own limits)")
    for part, cell in zip(figure.subfigures(2), CELLS, strict=True):
        part.suptitle(", ".join(cell.values()), fontsize=11)
        axes = part.subplots(len(names), len(steps))
        for row, name in zip(axes, names, strict=True):
            row[0].set_ylabel({"pred_original_sample": "x0-hat"}.get(name, name), fontsize=9)
            images = ds[name].sel(cell).isel(timestep=steps).transpose("timestep", "height", "width", "channel").values
            for axis, image in zip(row, images, strict=True):
                _show(axis, name, image)
        for axis, step in zip(axes[0], steps, strict=True):
            axis.set_title(f"t = {int(ds['timestep'][step])}", fontsize=9)
    figure.savefig(out, dpi=90)


def _show(axis, name: str, image: np.ndarray) -> None:
    axis.set(xticks=[], yticks=[])
    if name == "gradient":
        mean = image.mean(axis=-1)
        limit = np.abs(mean).max() or 1
        axis.imshow(mean, cmap="RdBu_r", vmin=-limit, vmax=limit)
    else:
        axis.imshow(np.clip((image + 1) / 2, 0, 1))


def samples(denoiser: str, out: str) -> None:
    """A contact sheet of 64 unguided samples."""
    import torch

    from gradscope.evaluation.cards import unguided_samples
    from gradscope.models.diffusion import load_denoiser

    images = torch.cat(list(unguided_samples(load_denoiser(denoiser), 64, 100, torch.device("cpu"))))
    n, channels, height, width = images.shape
    grid = ((images.clamp(-1, 1) + 1) / 2).reshape(4, 16, channels, height, width)
    sheet = grid.permute(0, 3, 1, 4, 2).reshape(4 * height, 16 * width, channels).numpy()
    plt.imsave(out, np.kron(sheet, np.ones((2, 2, 1))))


if __name__ == "__main__":
    {"gradients": gradients, "samples": samples}[sys.argv[1]](*sys.argv[2:])
