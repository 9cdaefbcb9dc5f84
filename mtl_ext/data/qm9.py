"""QM9: eleven properties of small organic molecules, one regression each (Ramakrishnan et al. 2014).

Targets and units are those of PyTorch Geometric and Nash-MTL: energies in electronvolts, the gap left out, and the
four energies at 0 K and 298.15 K as energies of atomisation.
"""

import csv
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mtl_ext.data.cache import cached_arrays
from mtl_ext.data.reading import Layout, reading
from mtl_ext.data.task import MemorySplit, MultiTaskData, Task
from mtl_ext.metrics import AbsoluteError

ELEMENTS = ("H", "C", "N", "O", "F")
NUMBERS = (1, 6, 7, 8, 9)
FEATURES = len(ELEMENTS) + 3
HARTREE_IN_EV = 27.211386246
KCAL_PER_MOL_IN_EV = 0.04336414
# Task -> column of the 19 targets y of PyTorch Geometric, in Nash-MTL's order.
TARGETS = {
    "mu": 0,
    "alpha": 1,
    "homo": 2,
    "lumo": 3,
    "r2": 5,
    "zpve": 6,
    "u0": 12,
    "u298": 13,
    "h298": 14,
    "g298": 15,
    "cv": 11,
}
UNITS = dict(
    zip(TARGETS, ("D", "bohr^3", "eV", "eV", "bohr^2", "eV", "eV", "eV", "eV", "eV", "cal/mol K"), strict=True)
)
# Energies of the free atoms H, C, N, O, F in hartree, from the set's atomref.txt: what an energy of atomisation is
# counted from.
FREE_ATOMS = {
    "u0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
    "u298": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
    "h298": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
    "g298": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}
HELD_OUT = 10_000
LAYOUT = Layout(
    "QM9",
    """\
root/processed/data_v3.pt                           PyTorch Geometric's processed file, or
root/raw/gdb9.sdf, gdb9.sdf.csv, uncharacterized.txt     the files that it is made of; root may also be either folder
without a root, the package qm9pack: pip install qm9pack""",
)


class Molecules(NamedTuple):
    """M molecules: atoms [M, A, 8] float32 (:func:`qm9` describes them) and the eleven targets [M, 11] float64."""

    atoms: Tensor
    values: Tensor


@dataclass(frozen=True)
class Scale:
    """What turns a standardised value back into its unit: ``value * std + mean``."""

    mean: float
    std: float


class UnitError(AbsoluteError):
    """Mean absolute error in the target's unit, of outputs and targets that were divided by `std`."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def compute(self) -> float:
        """Mean absolute error in the target's unit."""
        return self.std * super().compute()


def qm9(root: str | None = None, held_out: int = HELD_OUT, seed: int = 42) -> MultiTaskData:
    """Reads the user's copy of QM9: PyTorch Geometric's files, or the package qm9pack.

    Args:
        root: the folder that holds ``processed`` or ``raw``, see :data:`LAYOUT`; none means qm9pack.
        held_out: number of molecules for testing, and again for validation; the rest is for training.
        seed: of the split. Nash-MTL's default is 42 as well, but a split drawn here is not the one drawn there.

    Returns:
        Eleven tasks of one value each, standardised by mean and (population) standard deviation over the training
        molecules; the tasks' metric is the mean absolute error in the unit of :data:`UNITS`. Inputs are atoms
        [B, A, 8] float32: one of H, C, N, O, F (five numbers, one of them 1), then x, y and z in angstrom from the
        mean of the molecule's atoms. A is the largest number of atoms, 29 in QM9; rows of zeros follow where there
        are fewer. The published set has 130,831 molecules, without those that are listed as uncharacterized.

    Raises:
        FileNotFoundError: a file is missing, or qm9pack is not installed.
        ValueError: a file that is not what it should be, or too few molecules for the split.
    """
    molecules = read_package() if root is None else read_folder(Path(root))
    count = len(molecules.atoms)
    if held_out < 1 or count <= 2 * held_out:
        raise ValueError(f"held_out is {held_out}, expected 1 .. {(count - 1) // 2}: there are {count} molecules")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    test, val, train = order.tensor_split([held_out, 2 * held_out])
    std, mean = torch.std_mean(molecules.values[train], dim=0, correction=0)
    flat = [name for name, value in zip(TARGETS, std.tolist(), strict=True) if not value > 0]
    if flat:
        raise ValueError(f"{', '.join(flat)}: all training molecules have the same value")
    values = ((molecules.values - mean) / std).float()

    def split(index: Tensor) -> MemorySplit:
        return MemorySplit(molecules.atoms[index], {name: values[index, k, None] for k, name in enumerate(TARGETS)})

    tasks = tuple(
        Task(name, "values", 1, functional.mse_loss, (partial(UnitError, value),))
        for name, value in zip(TARGETS, std.tolist(), strict=True)
    )
    return MultiTaskData(tasks, split(train), split(test), split(val))


def read_folder(root: Path) -> Molecules:
    """The molecules in PyTorch Geometric's files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file that is not what it should be.
    """
    for path in (root / "processed" / "data_v3.pt", root / "data_v3.pt"):
        if path.is_file():
            return read_processed(path)
    structures = LAYOUT.file(root / "raw" / "gdb9.sdf", root / "gdb9.sdf")
    return read_raw(
        structures,
        LAYOUT.file(structures.with_name("gdb9.sdf.csv")),
        LAYOUT.file(structures.with_name("uncharacterized.txt")),
    )


def read_processed(path: Path) -> Molecules:
    """The molecules in PyTorch Geometric's processed file.

    It holds a dict of tensors, where in them each molecule ends, and a class, which is not needed.

    Raises:
        ValueError: it is broken, or holds something else.
    """
    with reading(path), torch.serialization.safe_globals([(_Data, "torch_geometric.data.data.Data")]):
        data, slices, *_ = torch.load(path, map_location="cpu", weights_only=True)
        numbers, positions, y, ends = data["z"], data["pos"], data["y"], slices["z"]
        if not (y.ndim == 2 and y.shape[1] == 19 and len(ends) == len(y) + 1 and ends[-1] == len(numbers)):
            raise ValueError(
                f"it holds y {list(y.shape)}, {len(ends)} slices and {len(numbers)} atoms, expected y [M, 19]"
            )
        atoms = pad_atoms(numbers, positions, ends.diff())
        return Molecules(atoms, y[:, list(TARGETS.values())].double())


class _Data:
    """Stands for PyTorch Geometric's class of that name while its file is read."""


def read_raw(structures: Path, table: Path, left_out: Path) -> Molecules:
    """The molecules in ``gdb9.sdf``, ``gdb9.sdf.csv`` and ``uncharacterized.txt``.

    Raises:
        ValueError: one of them is broken, or they do not fit each other.
    """
    with reading(left_out):
        # Nine lines of heading and two at the end surround the list; molecules are counted from 1.
        excluded = {int(line.split()[0]) - 1 for line in left_out.read_text(encoding="utf-8").split("\n")[9:-2]}
    with reading(table):
        columns = np.loadtxt(table, delimiter=",", skiprows=1, usecols=range(1, 20), ndmin=2)
    with reading(structures), structures.open(encoding="utf-8") as file:
        numbers, positions, counts = _concatenate(_sdf_molecules(file))
    if len(counts) != len(columns):
        raise ValueError(f"{structures} holds {len(counts)} molecules, {table} {len(columns)}: expected as many")
    # The table begins with the rotational constants A, B and C; y ends with them.
    y = torch.from_numpy(np.roll(columns, -3, axis=1) * unit_factors())
    kept = torch.tensor([index not in excluded for index in range(len(y))])
    atoms = pad_atoms(numbers, positions, counts)
    return Molecules(atoms[kept], y[kept][:, list(TARGETS.values())])


def read_package() -> Molecules:
    """The molecules in the files of the package qm9pack, which is not imported.

    Its 225 MB of text take 15 s and more to read, so what they hold is kept in
    :func:`mtl_ext.files.cache_folder`.

    Raises:
        FileNotFoundError: it is not installed.
        ValueError: a file is broken.
    """
    spec = importlib.util.find_spec("qm9pack")
    if spec is None or spec.origin is None:
        raise LAYOUT.missing("no root is given and the package qm9pack is not installed")
    folder = Path(spec.origin).parent / "data"
    paths = [LAYOUT.file(folder / f"qm9_part{part}.csv") for part in (1, 2, 3)]

    def parse() -> dict[str, np.ndarray]:
        values: list[list[float]] = []
        molecules = _concatenate(molecule for path in paths for molecule in _csv_molecules(path, values))
        arrays = dict(zip(("numbers", "positions", "counts"), (part.numpy() for part in molecules), strict=True))
        return {**arrays, "values": np.array(values)}

    state = "-".join(str(path.stat().st_size) for path in paths)
    arrays = {name: torch.from_numpy(array) for name, array in cached_arrays(f"qm9pack-{state}", parse).items()}
    return Molecules(pad_atoms(arrays["numbers"], arrays["positions"], arrays["counts"]), arrays["values"])


def pad_atoms(numbers: Tensor, positions: Tensor, counts: Tensor) -> Tensor:
    """The inputs [M, A, 8] from all molecules' atoms in a row.

    Args:
        numbers: atomic numbers [sum of counts].
        positions: [sum of counts, 3] in angstrom.
        counts: number of atoms of each molecule [M].

    Raises:
        ValueError: an element other than H, C, N, O and F, or a position that is not finite.
    """
    if not bool(torch.isin(numbers, torch.tensor(NUMBERS)).all()):
        raise ValueError("there are atoms other than H, C, N, O and F")
    if not bool(positions.isfinite().all()):
        raise ValueError("there are positions that are not finite")
    molecule = torch.repeat_interleave(torch.arange(len(counts)), counts)
    centres = torch.zeros(len(counts), 3).index_add_(0, molecule, positions.float()) / counts[:, None]
    place = torch.arange(len(numbers)) - (counts.cumsum(0) - counts)[molecule]
    atoms = torch.zeros(len(counts), int(counts.max()), FEATURES)
    atoms[molecule, place, torch.searchsorted(torch.tensor(NUMBERS), numbers)] = 1.0
    atoms[molecule, place, len(ELEMENTS) :] = positions.float() - centres[molecule]
    return atoms


def unit_factors() -> np.ndarray:
    """From the units of gdb9.sdf.csv to those of y, [19]."""
    factors = np.ones(19)
    factors[[2, 3, 4, 6, 7, 8, 9, 10]] = HARTREE_IN_EV
    factors[12:16] = KCAL_PER_MOL_IN_EV
    return factors


Molecule = tuple[list[int], list[list[float]]]


def _sdf_molecules(lines: Iterable[str]) -> Iterator[Molecule]:
    """Atomic numbers and positions of the molecules in an SDF file (V2000)."""
    record: list[str] = []
    for line in lines:
        if not line.startswith("$$$$"):
            record.append(line)
            continue
        # Three lines of heading, the counts in columns of three characters, then x, y, z and element of each atom.
        atoms = [row.split() for row in record[4 : 4 + int(record[3][:3])]]
        yield [_number(row[3]) for row in atoms], [[float(value) for value in row[:3]] for row in atoms]
        record = []


def _csv_molecules(path: Path, values: list[list[float]]) -> Iterator[Molecule]:
    """Atomic numbers and positions of the molecules in a file of qm9pack; appends their targets to `values`."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with reading(path), path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = [_number(name) for name in row["Elements"].strip("[]").replace("'", "").split(",")]
            flat = [float(value) for value in row["XYZ_Ang"].replace("[", "").replace("]", "").split(",")]
            values.append(_package_targets(row, numbers))
            yield numbers, [flat[start : start + 3] for start in range(0, len(flat), 3)]


def _package_targets(row: dict[str, str], numbers: list[int]) -> list[float]:
    """The eleven targets of a molecule from a row of qm9pack, whose energies are absolute and in hartree."""
    names = {
        "mu": "Dipole_debye",
        "alpha": "Polarizability_bohr3",
        "homo": "HOMO_au",
        "lumo": "LUMO_au",
        "r2": "R2_bohr2",
        "zpve": "ZPVE_au",
        "u0": "InternalEnergy_0K_au",
        "u298": "InternalEnergy_298K_au",
        "h298": "Enthalphy_298K_au",
        "g298": "GibbsFreeEnergy_298K_au",
        "cv": "Heatcapacity_Cv_cal_mol_K",
    }
    values = {name: float(row[column]) for name, column in names.items()}
    for name, energies in FREE_ATOMS.items():
        values[name] -= sum(energies[NUMBERS.index(number)] for number in numbers)
    return [values[name] * (HARTREE_IN_EV if UNITS[name] == "eV" else 1.0) for name in TARGETS]


def _concatenate(molecules: Iterable[Molecule]) -> tuple[Tensor, Tensor, Tensor]:
    """All molecules' atomic numbers and positions in a row, and the molecules' numbers of atoms."""
    numbers: list[int] = []
    positions: list[list[float]] = []
    counts: list[int] = []
    for own_numbers, own_positions in molecules:
        if not own_numbers or len(own_numbers) != len(own_positions):
            raise ValueError(
                f"molecule {len(counts) + 1} has {len(own_numbers)} elements, {len(own_positions)} positions"
            )
        numbers += own_numbers
        positions += own_positions
        counts.append(len(own_numbers))
    if not counts:
        raise ValueError("there are no molecules")
    return torch.tensor(numbers), torch.tensor(positions), torch.tensor(counts)


def _number(element: str) -> int:
    if element not in ELEMENTS:
        raise ValueError(f"there is an atom {element!r}, expected one of {', '.join(ELEMENTS)}")
    return NUMBERS[ELEMENTS.index(element)]
