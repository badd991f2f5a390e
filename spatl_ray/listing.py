"""What an experiment can name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from spatl_ray.config import Devices, Experiment
from spatl_ray.experiments import presets
from spatl_ray.fields import OWN, kinds

# Written down, not read from the loaders and networks: those bring torch, which takes seconds.
DATA_SETS = {
    "digits": "1,797 grey images of 8 x 8 pixels, 10 classes; embedded in scikit-learn",
    "fashion_mnist": "70,000 grey images of clothes, 28 x 28 pixels, 10 classes",
    "mnist": "70,000 grey images of digits, 28 x 28 pixels, 10 classes",
    "emnist": "grey images of digits and letters, 28 x 28 pixels, 10 to 62 classes",
    "cifar10": "60,000 colour images of 32 x 32 pixels, 10 classes",
    "cifar100": "60,000 colour images of 32 x 32 pixels, 100 classes or 20 coarse ones",
    "svhn": "99,289 colour images of house numbers, 32 x 32 pixels, 10 classes",
    "femnist": "digits and letters by writer, 28 x 28 pixels, 62 classes; LEAF's files",
    "shakespeare": "the next of 80 characters of a play, by speaker; LEAF's files",
    "fcube": "points of a cube, 2 classes, for partition fcube; drawn",
    "synthetic_images": "noisy patterns of any shape and number of classes; drawn",
    "images": "a folder of images, one folder a class: data.root",
    "parquet": "a table with a row a sample: data.root",
}
MODELS = {
    "mlp": "multilayer perceptron",
    "lenet": "LeNet: two convolutions and three linear layers",
    "cnn": "FedAvg's network: two convolutions and two linear layers",
    "resnet20": "residual network of 20 layers for small images",
    "resnet32": "residual network of 32 layers for small images",
    "resnet56": "residual network of 56 layers for small images",
    "vgg11": "VGG-11 for small images: eight convolutions and three linear layers",
    "vgg13": "VGG-13 for small images: ten convolutions and three linear layers",
    "vgg16": "VGG-16 for small images: thirteen convolutions and three linear layers",
    "char_lstm": "recurrent network for characters",
    "torchvision.NAME": "a classifier of torchvision, such as torchvision.mobilenet_v3_small",
}
LOGGERS = {
    "tensorboard": "event files for TensorBoard",
    "ray_metrics": "Ray's metrics, for its dashboard, Prometheus and Grafana",
}
DOTTED = "package.module:Name"


def print_all() -> None:
    """Print algorithms, data sets, models, partitions and so on, a line each."""
    fields = Experiment.model_fields
    _section("algorithms", *_kinds(fields["algorithm"]))
    _section("data sets", DATA_SETS, has_own=True)
    _section("models", MODELS, has_own=True)
    _section("partitions", *_kinds(fields["partition"]))
    _section("samplers", *_kinds(fields["sampler"]))
    _section("availability", *_kinds(fields["availability"]))
    _section("attacks", *_kinds(fields["attack"]))
    _section("draws of devices' figures", *_kinds(Devices.model_fields["compute"]))
    _section("loggers", LOGGERS, has_own=True)
    _section("presets", presets())


def _kinds(field: FieldInfo) -> tuple[dict[str, str], bool]:
    """What a section's name can be, with its summary, and whether it can be an own one."""
    members = kinds(field)
    has_own = members.pop(OWN, None) is not None
    return {name: _summary(member) for name, member in members.items()}, has_own


def _summary(class_: type[BaseModel]) -> str:
    """The first line of the documentation."""
    return (inspect.getdoc(class_) or "").partition("\n")[0]


def _section(heading: str, lines: Mapping[str, str], has_own: bool = False) -> None:
    entries = {**lines, DOTTED: "an own one, by dotted name"} if has_own else lines
    print(f"{heading}:")
    for name, text in entries.items():
        print(f"  {name:<20} {text}")
