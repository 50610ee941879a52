"""DataModules: images of known density, Fashion-MNIST, and any folder of images."""

from jepa_train.data.base import ImageDataModule
from jepa_train.data.fashion_mnist import FashionMNISTDataModule
from jepa_train.data.image_folder import ImageFolderDataModule
from jepa_train.data.mixture import ImageMixture, MixtureDataModule, MixtureDataset, image_mixture

__all__ = [
    "FashionMNISTDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImageMixture",
    "MixtureDataModule",
    "MixtureDataset",
    "image_mixture",
]
