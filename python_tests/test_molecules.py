"""QM9 from all its sources, on made-up molecules: exact atoms, units, split, and what is refused."""

import sys

import numpy as np
import pytest
import torch

from mtl_ext.data import qm9
from mtl_ext.data.molecules import COLUMNS, make_molecule, write_molecules
from mtl_ext.data.qm9 import TARGETS, pad_atoms, read_folder, read_package

COUNT = 30
HARTREE, KCAL = 27.211386246, 0.04336414


@pytest.fixture(scope="module")
def molecules():
    rng = np.random.default_rng(0)
    return [make_molecule(rng) for _ in range(COUNT)]


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_EXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    write_molecules(tmp_path, "qm9pack", {"molecules": COUNT})
    return tmp_path / "qm9pack" / "data"


def expected_atoms(molecules):
    most = max(len(elements) for elements, _, _ in molecules)
    atoms = np.zeros((len(molecules), most, 8))
    for row, (elements, positions, _) in zip(atoms, molecules, strict=True):
        for index, name in enumerate(elements):
            row[index, "HCNOF".index(name)] = 1
        row[: len(elements), 5:] = positions - positions.mean(0)
    return atoms


def expected_values(molecules):
    """The eleven targets in Nash-MTL's order and units, from the table's columns by name."""
    factors = dict.fromkeys(("homo", "lumo", "zpve"), HARTREE)
    factors |= dict.fromkeys(("u0_atom", "u298_atom", "h298_atom", "g298_atom"), KCAL)
    names = ["mu", "alpha", "homo", "lumo", "r2", "zpve", "u0_atom", "u298_atom", "h298_atom", "g298_atom", "cv"]
    return np.array([[values[name] * factors.get(name, 1) for name in names] for _, _, values in molecules])


def test_targets_are_nash_mtls_columns_of_pytorch_geometric():
    assert list(TARGETS.values()) == [0, 1, 2, 3, 5, 6, 12, 13, 14, 15, 11]
    assert len(COLUMNS) == 19


@pytest.mark.parametrize(("layout", "tolerance"), [("pyg", 1e-5), ("raw", 2e-4)])
def test_pytorch_geometrics_files_give_back_what_was_written(tmp_path, molecules, layout, tolerance):
    write_molecules(tmp_path, layout, {"molecules": COUNT})
    # Every tenth molecule is listed as uncharacterized; the processed file has left them out already.
    kept = [m for i, m in enumerate(molecules) if layout == "pyg" or i % 10 != 9]
    atoms, values = read_folder(tmp_path)
    np.testing.assert_allclose(atoms, expected_atoms(kept)[:, : atoms.shape[1]], atol=tolerance)
    np.testing.assert_allclose(values, expected_values(kept), rtol=1e-6)
    inner = read_folder(tmp_path / ("processed" if layout == "pyg" else "raw"))
    assert torch.equal(inner.atoms, atoms)


def test_qm9pack_gives_back_what_was_written_and_is_cached(package, molecules):
    order = [i for part in range(3) for i in range(part, COUNT, 3)]
    atoms, values = read_package()
    np.testing.assert_allclose(atoms, expected_atoms([molecules[i] for i in order]), atol=1e-5)
    np.testing.assert_allclose(values, expected_values([molecules[i] for i in order]), rtol=1e-6)
    assert "qm9pack" not in sys.modules
    for path in package.iterdir():
        path.write_bytes(b"x" * path.stat().st_size)
    assert torch.equal(read_package().values, values)


def test_splits_are_seeded_disjoint_and_standardised_by_the_training_molecules(package):
    data = qm9(held_out=4)
    assert [len(split) for split in (data.train, data.val, data.test)] == [22, 4, 4]
    assert [task.name for task in data.tasks] == list(TARGETS)
    everything = read_package()
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(42))
    assert torch.equal(data.test.inputs, everything.atoms[order[:4]])
    assert torch.equal(data.val.inputs, everything.atoms[order[4:8]])
    train = everything.values[order[8:]].numpy()
    for k, task in enumerate(data.tasks):
        mean, std = train[:, k].mean(), train[:, k].std()
        np.testing.assert_allclose(data.train.targets[task.name][:, 0], (train[:, k] - mean) / std, atol=1e-5)
        (metric,) = (make() for make in task.metrics)
        target = data.test.targets[task.name]
        metric.update(target + 0.5, target)
        assert metric.compute() == pytest.approx(0.5 * std, rel=1e-5)
    assert not torch.equal(qm9(held_out=4, seed=1).test.inputs, data.test.inputs)


class Data:
    """Stands for the class that PyTorch Geometric puts into its files."""


def test_the_class_in_pytorch_geometrics_file_is_not_needed(tmp_path, monkeypatch):
    write_molecules(tmp_path, "pyg", {"molecules": COUNT})
    path = tmp_path / "processed" / "data_v3.pt"
    before = read_folder(tmp_path)
    data, slices = torch.load(path, weights_only=True)
    module = type(sys)("torch_geometric.data.data")
    module.Data = type("Data", (), {"__module__": "torch_geometric.data.data"})
    for name in ("torch_geometric", "torch_geometric.data"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.setitem(sys.modules, "torch_geometric.data.data", module)
    torch.save((data, slices, module.Data), path)
    monkeypatch.undo()
    assert torch.equal(read_folder(tmp_path).atoms, before.atoms)
    torch.save((data, slices, Data), path)
    with pytest.raises(ValueError, match=r"data_v3\.pt cannot be read"):
        read_folder(tmp_path)


def test_missing_and_broken_files_are_named(tmp_path, package):
    with pytest.raises(FileNotFoundError, match=r"(?s)no file .*gdb9\.sdf.*processed/data_v3\.pt.*pip install qm9pack"):
        qm9(str(tmp_path / "nowhere"))
    write_molecules(tmp_path, "raw", {"molecules": COUNT})
    sdf = tmp_path / "raw" / "gdb9.sdf"
    text = sdf.read_text()
    sdf.write_text(text.replace(" C ", " Si", 1))
    with pytest.raises(ValueError, match=r"gdb9\.sdf cannot be read: there is an atom 'Si', expected one of H, C"):
        qm9(str(tmp_path))
    sdf.write_text(text[: text.rindex("$$$$")])
    with pytest.raises(ValueError, match=r"gdb9\.sdf holds 29 molecules, .*gdb9\.sdf\.csv 30"):
        qm9(str(tmp_path))
    (tmp_path / "raw" / "uncharacterized.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"uncharacterized\.txt"):
        qm9(str(tmp_path))
    (package / "qm9_part2.csv").write_text("Index\n1\n")
    with pytest.raises(ValueError, match=r"qm9_part2\.csv cannot be read"):
        qm9()


def test_a_split_that_is_too_large_is_refused(package):
    with pytest.raises(ValueError, match=r"held_out is 10000, expected 1 \.\. 14: there are 30 molecules"):
        qm9()


def test_without_qm9pack_and_without_a_root_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install qm9pack"):
        qm9()


def test_atoms_that_are_none_of_qm9s_are_refused():
    with pytest.raises(ValueError, match="other than H, C, N, O and F"):
        pad_atoms(torch.tensor([1, 16]), torch.zeros(2, 3), torch.tensor([2]))
    with pytest.raises(ValueError, match="not finite"):
        pad_atoms(torch.tensor([1, 6]), torch.tensor([[0, 0, 0], [float("nan"), 0, 0]]), torch.tensor([2]))


def test_made_up_molecules_keep_valences_and_distances(molecules):
    for elements, positions, _ in molecules:
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 10 * np.eye(len(elements))
        assert distances.min() > 0.9
        assert 2 <= len([name for name in elements if name != "H"]) <= 9
    with pytest.raises(ValueError, match="layout is 'sdf', expected one of 'pyg', 'raw', 'qm9pack'"):
        write_molecules(None, "sdf", {"molecules": 1})
