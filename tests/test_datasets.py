import json
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dbwjax import prepare
from dbwjax.tasks import build_task, cache, pca, tfds_folder
from dbwjax.tasks.datasets import load

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Each test has a cache folder of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "dbwjax"


def draw(task, started=0, worker=0):
    return task.batches(KEY, jnp.asarray(worker), jnp.asarray(started))


def small_mnist(tfds_dir, where):
    """A TFDS folder in which the test split of MNIST stands for both splits."""
    source, target = Path(tfds_dir) / "mnist" / "3.0.1", where / "mnist" / "3.0.1"
    target.mkdir(parents=True)
    info = json.loads((source / "dataset_info.json").read_text())
    train, test = info["splits"]
    train["shardLengths"] = test["shardLengths"]
    (target / "dataset_info.json").write_text(json.dumps(info))
    shutil.copyfile(source / "features.json", target / "features.json")
    for split in ("train", "test"):
        name = "mnist-{}.array_record-00000-of-00001"
        shutil.copyfile(source / name.format("test"), target / name.format(split))
    return target


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits, data = load_digits(), load("digits")
    assert data.train_images.shape == (1437, 64)
    assert data.test_images.shape == (360, 64)
    images = np.concatenate([data.train_images, data.test_images])
    labels = np.concatenate([data.train_labels, data.test_labels])
    assert images.dtype == np.uint8
    ours, theirs = np.c_[images, labels], np.c_[digits.data, digits.target].astype(np.uint8)
    np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    np.testing.assert_allclose(np.bincount(data.test_labels) / 360, 0.1, atol=0.04)
    pixels = data.train_images.astype(float)
    np.testing.assert_allclose([data.mean[0], data.deviation[0]], [pixels.mean(), pixels.std()])


def test_a_task_on_digits():
    task = build_task("digits", workers=10, batch_size=7)
    batch = draw(task)
    assert batch["image"].shape == (7, 64)
    assert batch["image"].dtype == jnp.float32
    assert batch["label"].dtype == jnp.int32
    assert task.sizes.sum() == 1437
    many = jax.jit(jax.vmap(lambda n: draw(task, n)["image"]))(jnp.arange(300))
    np.testing.assert_allclose([many.mean(), many.std()], [0, 1], atol=0.05)
    params = task.init(KEY)
    measured = task.evaluate(params)
    assert set(measured) == {"test_loss", "test_accuracy"}
    data = load("digits")
    images = (data.test_images.astype(float) - data.mean) / data.deviation
    assert np.isclose(
        task.loss(params, {"image": images.astype(np.float32), "label": data.test_labels}), measured["test_loss"]
    )


def test_every_worker_draws_from_its_own_classes():
    task = build_task("digits", workers=10, partition="shards:per_worker=1", batch_size=64)
    for worker in range(10):
        assert len(np.unique(draw(task, worker=worker)["label"])) <= 3


def test_plain_training_on_digits_works():
    task = build_task("digits", workers=1, batch_size=64)

    @jax.jit
    def train(params):
        def one(params, started):
            gradient = jax.grad(task.loss)(params, task.batches(KEY, jnp.asarray(0), started))
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), None

        return jax.lax.scan(one, params, jnp.arange(200))[0]

    assert task.evaluate(train(task.init(KEY)))["test_accuracy"] > 0.95


def test_mnist_read_and_cached(tfds_dir, own_cache, monkeypatch):
    start = time.process_time()
    data = load("mnist", tfds_dir)
    first = time.process_time() - start
    assert data.train_images.shape == (60000, 784)
    assert data.test_images.shape == (10000, 784)
    # Facts about MNIST that are published and recorded beside the data.
    np.testing.assert_allclose([data.mean[0] / 255, data.deviation[0] / 255], [0.1307, 0.3081], atol=5e-5)
    assert np.bincount(data.train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    monkeypatch.setattr(tfds_folder, "read", lambda *_: pytest.fail("the record files were opened again"))
    start = time.process_time()
    again = load("mnist", tfds_dir)
    second = time.process_time() - start
    for ours, theirs in zip(again, data, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # The promise is 5 s and 1 s on two free cores. Seconds of all threads, which other work on the machine does not
    # count in, though it slows them; so there is some room.
    assert first < 15
    assert second < 3


def test_images_are_those_that_tfds_decodes(tfds_dir):
    import tensorflow_datasets as tfds

    source = tfds.data_source("cifar10", split="test", data_dir=tfds_dir, download=False)
    which = [0, 17, 4095, 4096, 9999]
    images, labels = tfds_folder.read(tfds_folder.find("cifar10", tfds_dir), "test")
    expected = source.__getitems__(which)
    np.testing.assert_array_equal(images[which], [record["image"] for record in expected])
    np.testing.assert_array_equal(labels[which], [record["label"] for record in expected])


def test_a_damaged_cache_file_is_made_again(own_cache):
    made = []

    def make():
        made.append(1)
        return {"numbers": np.arange(1000)}

    cache.cached("table", make)
    cache.cached("table", make)
    assert len(made) == 1
    file = own_cache / "table.npz"
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", whole[:100], whole[:-10], bytes(flipped), b"PK" + whole[7:], b"hello" * 100):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(cache.cached("table", make)["numbers"], np.arange(1000))
        assert file.read_bytes() == whole
    assert len(made) == 7
    assert [path.name for path in own_cache.iterdir()] == ["table.npz"]


def test_an_error_while_making_leaves_nothing_in_the_cache(own_cache):
    with pytest.raises(ZeroDivisionError):
        cache.cached("table", lambda: {"numbers": 1 // 0})
    assert not own_cache.exists()


def test_a_cache_that_cannot_be_written_is_a_warning(own_cache):
    own_cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="data are not cached in .*; set XDG_CACHE_HOME to a folder"):
        assert cache.cached("table", lambda: {"numbers": np.arange(3)})["numbers"].tolist() == [0, 1, 2]


def test_a_changed_data_set_is_read_again(tfds_dir, tmp_path, own_cache):
    folder = small_mnist(tfds_dir, tmp_path)
    before = tfds_folder.fingerprint(folder)
    load("mnist", str(tmp_path))
    record = folder / "mnist-train.array_record-00000-of-00001"
    record.write_bytes(record.read_bytes()[:100_000])
    assert tfds_folder.fingerprint(folder) != before
    with pytest.raises(ValueError, match=r"the train split of .* cannot be read \(.*\); delete that folder"):
        load("mnist", str(tmp_path))
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "missing"])
def test_damaged_record_files(tfds_dir, tmp_path, damage):
    folder = small_mnist(tfds_dir, tmp_path)
    record = folder / "mnist-test.array_record-00000-of-00001"
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "missing":
        record.unlink()
    else:
        record.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "flipped": content}[damage])
    with pytest.raises(ValueError, match=r"the test split of .*mnist.* cannot be read") as error:
        tfds_folder.read(folder, "test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_a_data_set_that_is_not_prepared_is_told_at_once(name, tmp_path, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    for where in (tmp_path, tmp_path / "nowhere"):
        start = time.perf_counter()
        with pytest.raises(ValueError, match="is not prepared in") as error:
            build_task(name, workers=10, data_dir=str(where))
        assert time.perf_counter() - start < 1
        for word in (str(where), "--data-dir", "TFDS_DATA_DIR", f"dbwjax.prepare {name}"):
            assert word in str(error.value)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "nowhere").exists()


def test_where_data_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", "/from/environment")
    assert tfds_folder.data_folder("/given") == Path("/given")
    assert tfds_folder.data_folder(None) == Path("/from/environment")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert tfds_folder.data_folder(None) == tmp_path / "tensorflow_datasets"


def test_the_newest_version_is_taken_and_unfinished_ones_are_not(tmp_path):
    for version in ("3.0.9", "3.0.10", "3.0.11.incompleteABC", "3.0.12"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        if version != "3.0.12":
            (tmp_path / "mnist" / version / "dataset_info.json").write_text('{"fileFormat": "array_record"}')
    assert tfds_folder.find("mnist", str(tmp_path)).name == "3.0.10"


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ('{"fileFormat": "tfrecord"}', "is stored as tfrecord, which needs TensorFlow"),
        ("{", "dataset_info.json cannot be read"),
        ("[]", "is stored as None"),
    ],
)
def test_folders_of_another_kind(tmp_path, info, message):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text(info)
    with pytest.raises(ValueError, match=message) as error:
        load("mnist", str(tmp_path))
    assert "\n" not in str(error.value)


def test_prepare_says_what_it_needs(monkeypatch, capsys):
    monkeypatch.setattr(tfds_folder.importlib.util, "find_spec", lambda name: None)
    assert prepare.main(["mnist"]) == 2
    assert (
        capsys.readouterr().err == "error: preparing 'mnist' needs TensorFlow; run pip install 'dbwjax[data]' first\n"
    )


def test_prepare_asks_tfds_for_array_records(monkeypatch, tmp_path, capsys):
    import tensorflow_datasets as tfds

    class Builder:
        def download_and_prepare(self):
            (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
            (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text('{"fileFormat": "array_record"}')

    def builder(name, *, data_dir, file_format):
        assert (name, data_dir, file_format) == ("mnist", str(tmp_path), "array_record")
        return Builder()

    monkeypatch.setattr(tfds_folder.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(tfds, "builder", builder)
    assert prepare.main(["mnist", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "mnist" / "3.0.1")
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: (_ for _ in ()).throw(ConnectionError("no route\nat all")))
    assert prepare.main(["mnist", "--data-dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("prepare it where there is a network and copy the folder")


def test_pca_is_that_of_a_singular_value_decomposition():
    data = load("digits")
    train, test = pca.project(data.train_images, data.test_images, 10)
    centred = data.train_images - data.train_images.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:10] * np.sign(np.take_along_axis(axes[:10], np.abs(axes[:10]).argmax(1)[:, None], 1))
    scale = np.sqrt((values[:10] ** 2).mean() / len(centred))
    np.testing.assert_allclose(train, centred @ axes.T / scale, atol=1e-3)
    np.testing.assert_allclose(test, (data.test_images - data.train_images.mean(axis=0)) @ axes.T / scale, atol=1e-3)
    assert train.dtype == np.float32
    np.testing.assert_allclose(train.var(axis=0).mean(), 1, rtol=1e-4)
    assert (np.diff(train.var(axis=0)) < 0).all()


def test_pca_of_all_features_keeps_distances():
    images = np.random.default_rng(0).integers(0, 256, (30, 8), dtype=np.uint8)
    train, _ = pca.project(images, images, 8)
    ours = np.linalg.norm(train[:, None] - train[None], axis=-1)
    theirs = np.linalg.norm(images[:, None].astype(float) - images[None], axis=-1)
    np.testing.assert_allclose(ours, theirs * (ours[0, 1] / theirs[0, 1]), rtol=1e-3, atol=1e-5)


def test_a_task_on_components(tfds_dir, tmp_path, own_cache, monkeypatch):
    small_mnist(tfds_dir, tmp_path)
    task = build_task("mnist", model="lrm", workers=3, pca=5, data_dir=str(tmp_path))
    assert draw(task)["image"].shape == (32, 5)
    assert task.init(KEY)["kernel"].shape == (5, 10)
    monkeypatch.setattr(tfds_folder, "read", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(pca, "project", lambda *_: pytest.fail("projected again"))
    again = build_task("mnist", model="lrm", workers=3, pca=5, data_dir=str(tmp_path))
    np.testing.assert_array_equal(draw(task)["image"], draw(again)["image"])
    assert len(list(own_cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        ("digit", {}, "unknown dataset 'digit'; did you mean 'digits'"),
        ("digits:pca=3", {}, "unknown key 'pca'; it has none"),
        ("digits", {"model": "cn"}, "unknown model 'cn'; did you mean 'cnn'"),
        ("digits", {"model": "cnn", "pca": 10}, "use lrm or 2nn"),
        ("digits", {"pca": 0}, "pca=0 components of 64 features cannot be had; use 1 to 64"),
        ("digits", {"pca": 65}, "use 1 to 64"),
        ("digits", {"batch_size": 0}, "batch_size=0 draws no samples"),
        ("digits", {"workers": 2000}, "workers=2000 is more than the 1437 samples"),
        ("digits", {"workers": 0}, "workers=0"),
        ("digits", {"partition": "dirichlet:alpha=0.001", "workers": 40}, "without samples; use a larger alpha"),
    ],
)
def test_words_that_make_no_task(dataset, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        build_task(dataset, **{"workers": 4, **settings})
    assert "\n" not in str(error.value)


def test_cnn_takes_flat_rows():
    task = build_task("digits", model="cnn", workers=2, batch_size=3)
    loss, gradient = jax.jit(jax.value_and_grad(task.loss))(jax.jit(task.init)(KEY), draw(task))
    assert 0 < loss < 10
    assert all(jnp.isfinite(leaf).all() and jnp.any(leaf) for leaf in jax.tree.leaves(gradient))
