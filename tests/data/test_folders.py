"""Which folders are classes, in which order, and which files are pictures."""

import os
import re
import sys

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from gradscope import cli
from gradscope.auditing.run import run_audit
from gradscope.config import AuditConfig, DataConfig, TrainClassifierConfig
from gradscope.data.datasets import load
from gradscope.errors import GradscopeError
from gradscope.models import training


def write(root, *files: str, colour: int = 0) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (colour, colour, colour)).save(path)


def folder(root, split="train"):
    return load(DataConfig(name="image_folder", path=str(root), size=8), split)


NAMES = {
    "numbers": [str(k) for k in range(12)],
    "zeros": ["007", "07", "7", "8", "10"],
    "words": ["class10", "class9", "Class2", "b", "A", "cat 2", "cat 11", "n01440764", "n01440765"],
    "mixed": ["1", "a", "2b", "10b", "b2", "_x", "ä", "Z"],
}


@pytest.mark.parametrize("names", NAMES)
def test_classes_are_numbered_as_timm_numbers_them(tmp_path, names):
    for name in NAMES[names]:
        write(tmp_path, f"{name}/0.png")
    wanted = timm.data.create_dataset("", str(tmp_path)).reader.class_to_idx
    got = folder(tmp_path).classes
    if names == "zeros":  # timm's numbers of equal keys change from process to process
        assert got == ("007", "07", "7", "8", "10")
    else:
        assert {name: k for k, name in enumerate(got)} == wanted


class Level(torch.nn.Module):
    """Class k is where the mean grey is 20 k."""

    def forward(self, x):
        return -((((x.mean((1, 2, 3)) + 1) / 2 * 255)[:, None] - torch.arange(12.0) * 20) ** 2) / 50


def test_an_audit_by_numeric_folders(tmp_path, monkeypatch):
    for k in range(12):
        write(tmp_path / "data", *(f"{k}/{i}.png" for i in range(20)), colour=20 * k)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "levels.py").write_text("from test_folders import Level\n")
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    data = DataConfig(name="image_folder", path="data", size=8)
    config = AuditConfig(classifiers={"perfect": "levels:Level"}, data=data, timesteps=2, samples=24)
    assert run_audit(config).accuracy.sel(timestep=0).item() == 1


def test_what_is_hidden_is_not_seen(tmp_path):
    write(tmp_path, "a/0.png", "a/.ipynb_checkpoints/0-checkpoint.png", ".ipynb_checkpoints/0.png", "b/sub/0.png")
    (tmp_path / "a" / "._0.png").write_bytes(b"\0\5\26\7Mac OS X")
    (tmp_path / "__MACOSX" / "a").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "a" / "._0.png").write_bytes(b"\0\5\26\7Mac OS X")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"anything")
    (tmp_path / "README.txt").write_text("about")
    train, test = folder(tmp_path), folder(tmp_path, "test")
    assert train.classes == ("a", "b")
    assert len(train) + len(test) == 2
    train.batch(range(len(train)))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/a/0.png", "val/a/0.png"],
            r"holds splits \(train, val\) in place of folders of classes; .*/train$",
        ),
        (["Test/a/0.png", "Train/a/0.png", "meta/0.png"], r"holds splits \(Test, Train\) .*: .*/Test$"),
        (["train/0.png"], r"holds splits \(train\)"),
        (["train/a/0.png", "eval/a/0.png"], r"holds splits \(eval, train\)"),
        (["train2017/a/0.png", "val2017/a/0.png"], r"holds splits \(train2017, val2017\)"),
        (["train/a/0.png", "holdout/a/0.png"], r"holds splits \(holdout, train\)"),
        (["0.png"], "must hold one folder of images per class; .* holds none"),
        ([".hidden/0.png"], "must hold one folder of images per class; .* holds none"),
        (["a/0.png", "b/.0.png"], r"the class folder .*/b holds no image \(\.jpg, .*\); fill or remove it"),
    ],
)
def test_folders_that_are_no_classes_are_named(tmp_path, files, message):
    write(tmp_path, *files)
    with pytest.raises(GradscopeError, match=rf"^data\.path: .*{message}"):
        folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, "train/0.png", "car/0.png")
    assert folder(tmp_path).classes == ("car", "train")
    write(tmp_path, "bullet_train/0.png", "freight_train/0.png")
    assert folder(tmp_path).classes == ("bullet_train", "car", "freight_train", "train")


def test_a_pipe_is_no_picture(tmp_path):
    write(tmp_path, "a/0.png", "b/0.png")
    os.mkfifo(tmp_path / "b" / "1.png")
    with pytest.raises(GradscopeError, match=r"b/1.png is a pipe, a socket or a device, not a file"):
        folder(tmp_path)


def test_links(tmp_path):
    write(tmp_path / "there", "a/0.png", "a/1.png")
    root = tmp_path / "data"
    root.mkdir()
    (root / "a").symlink_to(tmp_path / "there" / "a")
    write(root, "b/0.png")
    (root / "b" / "again").symlink_to(root / "b")  # in a circle
    (root / "b" / "1.png").symlink_to(tmp_path / "there" / "a" / "1.png")
    assert len(folder(root)) + len(folder(root, "test")) == 4
    for link in ("b/2.png", "c"):
        (root / link).symlink_to("/nowhere")
        with pytest.raises(GradscopeError, match=rf"^data\.path: {root}/{link} is a broken link: /nowhere$"):
            folder(root)
        (root / link).unlink()


def damaged(how: str) -> bytes:
    from io import BytesIO

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    buffer = BytesIO()
    noise.save(buffer, "png" if "png" in how else "jpeg")
    whole = buffer.getvalue()
    return {"truncated": whole[:700], "png": whole[: len(whole) // 2], "empty": b"", "text": b"<html>404</html>",
            "last bytes": whole[:-200]}[how.split(",")[0]]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("truncated", r"image file is truncated \(\d+ bytes not processed\)"),
        ("last bytes", r"image file is truncated \(\d+ bytes not processed\)"),
        ("png, truncated", r"image file is truncated.*|broken PNG file.*|unrecognized data stream.*"),
        ("empty", "it is empty"),
        ("text", "its content is no picture"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, how, reason):
    write(tmp_path, "a/1.png")
    (tmp_path / "a" / "0.jpg").write_bytes(damaged(how))
    with pytest.raises(GradscopeError) as caught:
        folder(tmp_path, "test").batch([0])
    file = re.escape(str(tmp_path / "a" / "0.jpg"))
    assert re.fullmatch(rf"data\.path: {file} cannot be read: ({reason})", str(caught.value))


def test_a_file_that_may_not_be_read(tmp_path):
    write(tmp_path, "a/0.png")
    data = folder(tmp_path, "test")
    (tmp_path / "a" / "0.png").unlink()
    with pytest.raises(GradscopeError, match=r"^data\.path: .*/a/0\.png cannot be read: No such file or directory$"):
        data.batch([0])


def test_a_processs_error_in_training_has_no_traceback(tmp_path, monkeypatch):
    write(tmp_path, *(f"{k}/{i}.png" for k in "ab" for i in range(3)))
    for file in (tmp_path / "a").iterdir():
        file.write_bytes(damaged("truncated"))
    loader = torch.utils.data.DataLoader(folder(tmp_path), batch_size=2, num_workers=1)
    with pytest.raises(
        GradscopeError, match=r"^data\.path: [^\n]*/a/\d\.png cannot be read: image file is trunc[^\n]*$"
    ):
        list(training._loaded(loader))


def test_one_class_trains_no_classifier(tmp_path):
    write(tmp_path / "data", *(f"a/{i}.png" for i in range(3)))
    data = {"name": "image_folder", "path": str(tmp_path / "data"), "size": 8}
    content = {"data": data, "timm": "resnet10t", "training": {"steps": 1}, "output": str(tmp_path / "mine")}
    with pytest.raises(GradscopeError, match=r"^data: a classifier needs at least two classes, got a$"):
        training.train_classifier(TrainClassifierConfig.model_validate(content), torch.device("cpu"))


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    write(tmp_path / "data", *(f"{k}/{i}.png" for k in "ab" for i in range(20)))
    (tmp_path / "data" / "a" / "0.png").write_bytes(damaged("truncated"))
    (tmp_path / "audit.yaml").write_text(
        "classifiers: {c: gradscope.models.mixture:judge}\n"
        f"data: {{name: image_folder, path: {tmp_path / 'data'}, size: 8}}\n"
        "class_index: {a: 0, b: 1}\ntimesteps: 2\n"
    )
    monkeypatch.setattr(sys, "argv", ["gradscope", "audit", "--config", str(tmp_path / "audit.yaml")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"gradscope: data\.path: [^\n]*/a/0\.png cannot be read: [^\n]*\n", said)
