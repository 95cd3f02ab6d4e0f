"""Embedded datasets and loaders, compared with scikit-learn and NumPy."""

import itertools
import os
import pathlib
import random
from typing import ClassVar

import keras
import numpy as np
import pytest

from keras_sae import datasets

SETTINGS = {"patch_size": 6, "num_patches": 500}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Return one folder for the session, so that each dataset is prepared once."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def no_defaults(monkeypatch, tmp_path):
    """Hide `TFDS_DATA_DIR` and the home folder of the user."""
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="session")
def make_dataset(data_dir):
    """Return a function that writes a TFDS dataset of one example."""

    def make(dataset, features, example, supervised_keys=None):
        import tensorflow_datasets as tfds

        class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            name = dataset
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=supervised_keys,
                )

            def _split_generators(self, dl_manager):
                return {"train": iter([(0, example)])}

            def _generate_examples(self):
                raise NotImplementedError

        Small(data_dir=data_dir).download_and_prepare()
        return dataset

    return make


@pytest.fixture(scope="session")
def raw(data_dir):
    """Return the natural patches without whitening, train and test."""
    (train, _), (test, _) = datasets.load_data(
        "natural_patches", data_dir, whitening=None, **SETTINGS
    )
    return train, test


def _files(folder):
    return sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())


class TestDigits:
    def test_splits_hold_every_digit_of_scikit_learn_once(self, data_dir):
        from sklearn.datasets import load_digits

        (x_train, y_train), (x_test, y_test) = datasets.load_data("digits", data_dir)

        assert x_train.shape == (1437, 8, 8, 1)
        assert x_test.shape == (360, 8, 8, 1)
        assert x_train.dtype == x_test.dtype == np.float32
        assert y_train.dtype == y_test.dtype == np.int64
        source = load_digits()
        ours = np.concatenate([x_train, x_test]).reshape(-1, 64) * 16
        ours = np.column_stack([ours, np.concatenate([y_train, y_test])])
        theirs = np.column_stack([source.data, source.target])
        np.testing.assert_array_equal(
            ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)]
        )

    def test_split_is_stratified(self, data_dir):
        (_, y_train), (_, y_test) = datasets.load_data("digits", data_dir)

        test = np.bincount(y_test, minlength=10)
        share = 360 / 1797 * (test + np.bincount(y_train, minlength=10))

        assert np.all(np.abs(test - share) < 1)

    def test_arrays_are_the_same_in_another_folder(self, data_dir, tmp_path):
        first = datasets.load_data("digits", data_dir)
        second = datasets.load_data("digits", tmp_path)

        for ours, theirs in zip(
            itertools.chain(*first), itertools.chain(*second), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


class TestFashionMini:
    def test_splits_have_equal_classes_in_the_official_order(self, data_dir):
        (x_train, y_train), (x_test, y_test) = datasets.load_data(
            "fashion_mini", data_dir
        )

        assert x_train.shape == (6000, 28, 28, 1)
        assert x_test.shape == (1000, 28, 28, 1)
        assert x_train.dtype == x_test.dtype == np.float32
        assert y_train.dtype == y_test.dtype == np.int64
        assert (x_train.min(), x_train.max()) == (0.0, 1.0)
        assert np.bincount(y_train).tolist() == [600] * 10
        assert np.bincount(y_test).tolist() == [100] * 10
        # The first labels of the official files.
        assert y_train[:12].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9]
        assert y_test[:12].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7, 4, 5]

    def test_every_image_is_one_of_the_same_split_of_fashion_mnist(self, data_dir):
        folder = os.environ.get("TFDS_DATA_DIR")
        if not folder or not (pathlib.Path(folder) / "fashion_mnist").exists():
            pytest.skip(f"fashion_mnist is not prepared: TFDS_DATA_DIR={folder!r}")

        for mini, full in zip(
            datasets.load_data("fashion_mini", data_dir),
            datasets.load_data("fashion_mnist"),
            strict=True,
        ):
            known = {
                (image.tobytes(), label) for image, label in zip(*full, strict=True)
            }
            ours = [
                (image.tobytes(), label) for image, label in zip(*mini, strict=True)
            ]
            assert known.issuperset(ours)
            assert len(set(ours)) == len(ours)

    def test_file_is_small_and_its_license_lies_beside_it(self):
        folder = pathlib.Path(datasets.__file__).parent / "fashion_mini"

        assert (folder / "fashion_mini.npz").stat().st_size < 4e6
        license_text = (folder / "LICENSE").read_text(encoding="utf-8")
        assert "MIT License" in license_text
        assert "Zalando SE" in license_text


class TestNaturalPatches:
    def test_raw_patches_occur_in_the_halved_photographs(self, raw):
        from PIL import Image
        from sklearn.datasets import load_sample_images

        train, test = raw
        assert train.shape == (500, 6, 6, 1)
        assert test.shape == (100, 6, 6, 1)
        assert train.dtype == np.float32
        halves = []
        for photograph in load_sample_images().images:
            grey = np.tensordot(photograph / 255, [0.299, 0.587, 0.114], 1)
            half = Image.fromarray(grey[:426].astype("float32")).reduce(2)
            halves.append(np.asarray(half))
        for patch in (train[0, ..., 0], train[-1, ..., 0], test[0, ..., 0]):
            windows = np.lib.stride_tricks.sliding_window_view(halves, (1, 6, 6))
            assert np.abs(windows[:, :, :, 0] - patch).max(axis=(3, 4)).min() < 1e-5

    def test_splits_share_no_pixel(self):
        from keras_sae.datasets.natural_patches import photographs

        train, test = photographs.tiles("train"), photographs.tiles("test")

        assert len(train) == 4 * len(test) == 32
        halved = sum(
            photograph[:424].mean(axis=(0, 1)) @ [0.299, 0.587, 0.114] / 255 / 2
            for photograph in self._photographs()
        )
        # Together the tiles are the photographs, so no part is in both splits.
        assert np.concatenate([train, test]).mean() == pytest.approx(halved, rel=1e-9)
        rows = {tile.tobytes() for tile in (*train, *test)}
        assert len(rows) == 40

    @staticmethod
    def _photographs():
        from sklearn.datasets import load_sample_images

        return load_sample_images().images

    def test_half_with_more_contrast_is_kept(self):
        from keras_sae.datasets.natural_patches import photographs

        tiles = photographs.tiles("test")
        found = photographs.patches(tiles, 20)
        contrast = [
            tile[top : top + 20, left : left + 20].std()
            for tile in tiles
            for top in range(53 - 19)
            for left in range(64 - 19)
        ]

        assert len(found) == photographs.available("test", 20) == len(contrast) // 2
        least = found.std(axis=(1, 2)).min()
        assert least == pytest.approx(np.median(contrast), rel=1e-3)

    def test_patches_are_distinct(self, raw):
        for patches in raw:
            assert len(np.unique(patches.reshape(len(patches), -1), axis=0)) == len(
                patches
            )

    def test_classic_whitening_is_the_published_map(self, data_dir, raw):
        (train, labels), (test, _) = datasets.load_data(
            "natural_patches", data_dir, **SETTINGS
        )

        assert labels is None
        centred = [
            np.array([patch - patch.mean() for patch in part.astype("float64")])
            for part in raw
        ]
        limit = 3 * np.sqrt((centred[0] ** 2).mean())
        for ours, part in zip((train, test), centred, strict=True):
            expected = (np.minimum(np.maximum(part, -limit), limit) / limit + 1) * 0.4
            np.testing.assert_allclose(ours, expected + 0.1, atol=1e-6)
        assert train.min() == np.float32(0.1)
        assert train.max() == np.float32(0.9)

    def test_zca_patches_are_white(self, data_dir, raw):
        (train, _), (test, _) = datasets.load_data(
            "natural_patches", data_dir, whitening="zca", **SETTINGS
        )

        flat = train.reshape(500, 36).astype("float64")
        np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(flat.T @ flat / 500, np.eye(36), atol=0.03)
        # Both splits go through one linear map. ZCA is the whitening whose map is
        # symmetric.
        source = [part.reshape(-1, 36).astype("float64") for part in raw]
        mean = source[0].mean(axis=0)
        matrix = np.linalg.lstsq(source[0] - mean, flat, rcond=None)[0]
        np.testing.assert_allclose(matrix, matrix.T, atol=1e-2)
        np.testing.assert_allclose(
            (source[1] - mean) @ matrix, test.reshape(-1, 36), atol=1e-3
        )

    def test_settings_have_folders_of_their_own(self, data_dir):
        from keras_sae.datasets.natural_patches import (
            natural_patches_dataset_builder as patches,
        )

        folders = [
            patches.Builder(
                patch_size=size, num_patches=n, whitening=kind, data_dir=data_dir
            ).data_dir
            for size in (1, 8, 11)
            for n in (8, 18, 81)
            for kind in (None, "classic", "zca")
        ]

        assert len(set(folders)) == len(folders) == 27

    def test_name_gives_the_config(self, data_dir):
        from keras_sae.datasets.natural_patches import (
            natural_patches_dataset_builder as patches,
        )

        builder = patches.Builder(config="7x7_123_raw", data_dir=data_dir)

        config = builder.builder_config
        assert (config.patch_size, config.num_patches) == (7, 123)
        assert config.whitening is None
        with pytest.raises(ValueError, match="not found"):
            patches.Builder(config="7x8_123_raw")

    def test_loading_logs_no_warning(self, data_dir, caplog):
        datasets.load("natural_patches", "test", 10, data_dir=data_dir, **SETTINGS)

        assert not [record for record in caplog.records if record.levelno >= 30]


class TestLoad:
    def test_batches_hold_the_split_and_have_a_length(self, data_dir):
        (_, _), (x, y) = datasets.load_data("digits", data_dir)

        ds = datasets.load("digits", "test", 100, as_supervised=True, data_dir=data_dir)

        assert len(ds) == 4
        images, labels = zip(*ds.as_numpy_iterator(), strict=True)
        assert [len(batch) for batch in images] == [100, 100, 100, 60]
        np.testing.assert_array_equal(np.concatenate(images), x)
        np.testing.assert_array_equal(np.concatenate(labels), y)
        assert ds.element_spec[1].dtype == "int64"

    def test_train_is_shuffled_per_epoch_and_by_seed(self, data_dir):
        def epochs(seed, **kwargs):
            ds = datasets.load(
                "digits", "train", 500, data_dir=data_dir, seed=seed, **kwargs
            )
            return [np.concatenate(list(ds.as_numpy_iterator())) for _ in range(2)]

        (x, _), _ = datasets.load_data("digits", data_dir)
        first, again, other = epochs(1), epochs(1), epochs(2)
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first[0], first[1])
        assert not np.array_equal(first[0], other[0])
        assert not np.array_equal(first[0], x)
        assert np.sort(first[0], axis=0).tobytes() == np.sort(x, axis=0).tobytes()
        np.testing.assert_array_equal(epochs(1, shuffle=False)[0], x)

    def test_global_seed_determines_the_order(self, data_dir):
        def first_batch():
            keras.utils.set_random_seed(7)
            ds = datasets.load("digits", "train", 50, data_dir=data_dir)
            return next(ds.as_numpy_iterator())

        np.testing.assert_array_equal(first_batch(), first_batch())

    def test_other_splits_are_shuffled_only_on_request(self, data_dir):
        _, (x, _) = datasets.load_data("digits", data_dir)

        plain = datasets.load("digits", "test", 360, data_dir=data_dir)
        mixed = datasets.load("digits", "test", 360, shuffle=True, data_dir=data_dir)

        np.testing.assert_array_equal(next(plain.as_numpy_iterator()), x)
        assert not np.array_equal(next(mixed.as_numpy_iterator()), x)

    @pytest.mark.parametrize(
        ("split", "samples"),
        [("train[:100]", 100), ("test[50%:]", 180), ("train+test", 1797)],
    )
    def test_part_of_a_split_is_loaded(self, data_dir, split, samples):
        ds = datasets.load("digits", split, samples, data_dir=data_dir)

        assert len(ds) == 1
        assert next(ds.as_numpy_iterator()).shape == (samples, 8, 8, 1)

    def test_cache_holds_stored_values_and_batches_are_converted(self, data_dir):
        ds = datasets.load("digits", "train", 64, data_dir=data_dir)

        steps = []
        while hasattr(ds, "_input_dataset"):
            steps.append(type(ds).__name__)
            ds = ds._input_dataset
        order = [
            next(i for i, step in enumerate(steps) if name in step)
            for name in ("Prefetch", "ParallelMap", "Batch", "Shuffle", "Cache")
        ]
        assert order == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("dtype", ["uint8", "uint16"])
    def test_integers_are_divided_by_the_maximum_of_their_type(
        self, data_dir, make_dataset, dtype
    ):
        import tensorflow_datasets as tfds

        largest = {"uint8": 255, "uint16": 65535}[dtype]
        values = np.array([0, 1, largest - 1, largest], dtype).reshape(1, 2, 2, 1)
        name = make_dataset(
            f"images_{dtype}",
            {"image": tfds.features.Image(shape=(2, 2, 1), dtype=np.dtype(dtype))},
            {"image": values[0]},
        )

        x = next(datasets.load(name, "train", 1, data_dir=data_dir).as_numpy_iterator())

        np.testing.assert_array_equal(x, values.astype("float32") / largest)

    def test_dataset_trains_a_model(self, data_dir):
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", "sparse_categorical_crossentropy")

        ds = datasets.load(
            "digits", "train[:64]", 32, as_supervised=True, data_dir=data_dir
        )

        assert np.isfinite(
            model.fit(ds.map(_three_classes), shuffle=False, verbose=0).history["loss"]
        )


def _three_classes(x, label):
    return x, label % 3


class TestPreparing:
    def test_dataset_is_prepared_once(self, data_dir, monkeypatch):
        from keras_sae.datasets.digits import digits_dataset_builder as digits

        datasets.load_data("digits", data_dir)
        monkeypatch.setattr(digits.Builder, "_split_generators", None)

        datasets.load_data("digits", data_dir)

    def test_interrupted_preparation_leaves_no_file(self, tmp_path, monkeypatch):
        from keras_sae.datasets.digits import digits_dataset_builder as digits

        def interrupted(self, source, rows):
            yield 0, {"image": np.zeros((8, 8, 1), "float32"), "label": 0}
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(digits.Builder, "_generate_examples", interrupted)
            with pytest.raises(KeyboardInterrupt):
                datasets.load_data("digits", tmp_path)
        assert _files(tmp_path) == []
        (x_train, _), _ = datasets.load_data("digits", tmp_path)
        assert len(x_train) == 1437

    def test_another_process_may_finish_the_preparation_first(
        self, tmp_path, monkeypatch
    ):
        from keras_sae.datasets.digits import digits_dataset_builder as digits

        split_generators = digits.Builder._split_generators

        def overtaken(self, dl_manager):
            with monkeypatch.context() as patch:
                patch.setattr(
                    digits.Builder,
                    "_split_generators",
                    split_generators,
                )
                datasets.load_data("digits", tmp_path)
            return split_generators(self, dl_manager)

        monkeypatch.setattr(digits.Builder, "_split_generators", overtaken)
        (x_train, _), (x_test, _) = datasets.load_data("digits", tmp_path)

        assert (len(x_train), len(x_test)) == (1437, 360)
        assert not [path for path in _files(tmp_path) if "incomplete" in str(path)]

    def test_equal_seeds_use_different_temporary_folders(self, tmp_path, monkeypatch):
        from keras_sae.datasets.digits import digits_dataset_builder as digits

        folders = []
        split_generators = digits.Builder._split_generators

        def recorded(self, dl_manager):
            folders.append(pathlib.Path(self.data_dir).name)
            return split_generators(self, dl_manager)

        monkeypatch.setattr(digits.Builder, "_split_generators", recorded)
        for folder in ("a", "b"):
            random.seed(0)
            state = random.getstate()
            datasets.load_data("digits", tmp_path / folder)
            assert random.getstate() == state
        assert len(set(folders)) == 2

    def test_preparation_prints_nothing_to_standard_output(self, tmp_path, capfd):
        datasets.load_data("digits", tmp_path)

        assert capfd.readouterr().out == ""

    def test_environment_variable_is_read_per_call(self, no_defaults, monkeypatch):
        monkeypatch.setenv("TFDS_DATA_DIR", str(no_defaults / "named"))

        datasets.load("digits", "test", 10)

        assert os.listdir(no_defaults / "named" / "digits") == ["1.0.0"]
        assert not (no_defaults / "home").exists()

    def test_home_is_used_if_the_variable_names_a_folder_that_cannot_be_written(
        self, no_defaults, monkeypatch
    ):
        (no_defaults / "file").touch()
        monkeypatch.setenv("TFDS_DATA_DIR", str(no_defaults / "file" / "below"))

        datasets.load("digits", "test", 10)

        assert (no_defaults / "home/tensorflow_datasets/digits/1.0.0").exists()

    def test_prepared_dataset_is_read_from_a_read_only_folder(
        self, no_defaults, monkeypatch
    ):
        locked = no_defaults / "locked"
        datasets.load("digits", "test", 10, data_dir=locked)
        locked.chmod(0o555)
        monkeypatch.setenv("TFDS_DATA_DIR", str(locked))

        datasets.load("digits", "test", 10)
        datasets.load("digits", "test", 10, data_dir=locked)

        assert not (no_defaults / "home").exists()
        locked.chmod(0o755)

    def test_given_folder_is_not_replaced_by_the_default(self, no_defaults):
        (no_defaults / "file").touch()

        with pytest.raises(ValueError, match="data_dir"):
            datasets.load_data("digits", no_defaults / "file" / "below")

        assert not (no_defaults / "home").exists()

    @pytest.mark.slow
    def test_builders_pass_the_checks_of_tfds(self, data_dir, tmp_path):
        """Examples fit the features, and keys are unique."""
        import tensorflow_datasets as tfds

        from keras_sae.datasets.digits import digits_dataset_builder as digits
        from keras_sae.datasets.fashion_mini import fashion_mini_dataset_builder as mini
        from keras_sae.datasets.natural_patches import (
            natural_patches_dataset_builder as patches,
        )

        class Case(tfds.testing.DatasetBuilderTestCase):
            EXAMPLE_DIR = tmp_path

        class Digits(Case):
            DATASET_CLASS = digits.Builder
            SPLITS: ClassVar = {"train": 1437, "test": 360}

        class Fashion(Case):
            DATASET_CLASS = mini.Builder
            SPLITS: ClassVar = {"train": 6000, "test": 1000}

        class Patches(Case):
            DATASET_CLASS = patches.Builder
            SPLITS: ClassVar = {"train": 50, "test": 10}
            BUILDER_CONFIG_NAMES_TO_TEST: ClassVar = [
                patches.PatchesConfig(num_patches=50, whitening="zca")
            ]

        for case in (Digits, Fashion, Patches):
            case.setUpClass()
            test = case("test_download_and_prepare_as_dataset")
            result = test.defaultTestResult()
            test.run(result)
            assert result.wasSuccessful(), result.failures + result.errors


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"name": "digit"}, "name='digit'.*'digits'"),
            ({"name": "fashion_mnits"}, "'fashion_mnist'"),
            ({"name": "mnist/no_such_config"}, "mnist/no_such_config"),
            ({"name": ""}, "`name`"),
            ({"name": 3}, "`name`.*name=3"),
            ({"split": "valid"}, r"`split`.*'train' \(1437\).*'test' \(360\)"),
            ({"split": "train[:"}, r"`split`.*train\[:"),
            ({"split": None}, "`split`"),
            ({"split": "train[:0]"}, "empty"),
            ({"split": "test[300:200]"}, "empty"),
            ({"batch_size": 0}, "`batch_size`.*batch_size=0"),
            ({"batch_size": 2.0}, "`batch_size`.*batch_size=2.0"),
            ({"batch_size": True}, "`batch_size`.*batch_size=True"),
            ({"batch_size": 361}, "`batch_size`.*360 samples.*batch_size=361"),
        ],
    )
    def test_load_names_the_wrong_argument(self, data_dir, change, message):
        good = {"name": "digits", "split": "test", "batch_size": 10}

        with pytest.raises(ValueError, match=message):
            datasets.load(**{**good, **change}, data_dir=data_dir)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"patch_size": 54}, "`patch_size`.*53.*patch_size=54"),
            ({"patch_size": 0}, "`patch_size`.*patch_size=0"),
            ({"patch_size": 8.0}, "`patch_size`.*patch_size=8.0"),
            ({"num_patches": -1}, "`num_patches`.*num_patches=-1"),
            ({"num_patches": 10**6}, "`num_patches`.*41952.*num_patches=1000000"),
            ({"whitening": "pca"}, "`whitening`.*'classic', 'zca'.*whitening='pca'"),
            ({"whitening": ["zca"]}, "`whitening`"),
        ],
    )
    def test_patches_name_the_wrong_argument_and_write_nothing(
        self, tmp_path, settings, message
    ):
        with pytest.raises(ValueError, match=message):
            datasets.load_data("natural_patches", tmp_path, **settings)

        assert list(tmp_path.iterdir()) == []

    def test_labels_of_an_unlabelled_dataset_are_an_error(self, data_dir):
        with pytest.raises(ValueError, match=r"`as_supervised`.*'natural_patches'"):
            datasets.load(
                "natural_patches",
                "test",
                10,
                as_supervised=True,
                data_dir=data_dir,
                **SETTINGS,
            )

    def test_dataset_without_images_is_an_error(self, data_dir, make_dataset):
        name = make_dataset("numbers", {"value": np.int64}, {"value": 1})

        with pytest.raises(ValueError, match=r"must have an image feature.*'numbers'"):
            datasets.load(name, "train", 1, data_dir=data_dir)

    def test_images_of_different_sizes_are_an_error(self, data_dir, make_dataset):
        import tensorflow_datasets as tfds

        name = make_dataset(
            "sizes",
            {"image": tfds.features.Image(shape=(None, None, 1))},
            {"image": np.zeros((2, 2, 1), "uint8")},
        )

        with pytest.raises(ValueError, match="must have a fixed size"):
            datasets.load(name, "train", 1, data_dir=data_dir)

    def test_real_valued_targets_are_not_labels(self, data_dir, make_dataset):
        import tensorflow_datasets as tfds

        name = make_dataset(
            "regression",
            {"image": tfds.features.Image(shape=(2, 2, 1)), "age": np.float32},
            {"image": np.zeros((2, 2, 1), "uint8"), "age": 1.5},
            supervised_keys=("image", "age"),
        )

        with pytest.raises(ValueError, match="`as_supervised`"):
            datasets.load(name, "train", 1, as_supervised=True, data_dir=data_dir)
        with pytest.raises(ValueError, match=r"test split.*splits \['train'\]"):
            datasets.load_data(name, data_dir=data_dir)

    @pytest.mark.parametrize("download", [False, True])
    def test_missing_dataset_without_network_is_an_error_at_once(
        self, tmp_path, monkeypatch, download
    ):
        """The message names the command that prepares the dataset."""
        import urllib.request

        import tensorflow_datasets as tfds

        def refused(*args, **kwargs):
            raise OSError("no network")

        monkeypatch.setattr(urllib.request, "urlopen", refused)
        monkeypatch.setattr(
            tfds.core.DatasetBuilder, "download_and_prepare", pytest.fail
        )
        message = "no network" if download else r"tfds.load\('mnist', data_dir="

        with pytest.raises(ValueError, match=message) as error:
            datasets.load("mnist", "train", 8, data_dir=tmp_path, download=download)

        assert str(tmp_path) in str(error.value)
        assert list(tmp_path.iterdir()) == []


def test_dataset_prepared_by_tfds_is_loaded():
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not (pathlib.Path(folder) / "fashion_mnist").is_dir():
        pytest.skip(f"fashion_mnist is not prepared: TFDS_DATA_DIR={folder!r}")

    (x_train, y_train), (x_test, y_test) = datasets.load_data("fashion_mnist")
    ds = datasets.load("fashion_mnist", "test", 1000, as_supervised=True)

    assert x_train.shape == (60000, 28, 28, 1)
    assert x_test.shape == (10000, 28, 28, 1)
    assert (x_train.min(), x_train.max()) == (0.0, 1.0)
    assert np.bincount(y_test).min() > 800
    assert (y_train.min(), y_train.max()) == (0, 9)
    x, y = next(ds.as_numpy_iterator())
    assert len(ds) == 10
    np.testing.assert_array_equal(x, x_test[:1000])
    np.testing.assert_array_equal(y, y_test[:1000])
