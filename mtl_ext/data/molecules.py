"""Made-up molecules in QM9's files, for trying what reads QM9 where that set is not at hand.

Random trees of two to nine C, N, O and F atoms on a jittered grid, with hydrogen on free valences. The properties are
smooth functions of composition and geometry: they can be learnt, and mean nothing in chemistry.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from mtl_ext.data.qm9 import ELEMENTS, FREE_ATOMS, HARTREE_IN_EV, KCAL_PER_MOL_IN_EV, NUMBERS, unit_factors
from mtl_ext.files import write_atomically, write_text
from mtl_ext.methods.base import check_choice

# Of the molecules that a seed gives; to be raised with every change of them.
VERSION = 1
# Layout -> number of molecules in the published files.
SIZES = {"pyg": {"molecules": 130_831}, "raw": {"molecules": 133_885}, "qm9pack": {"molecules": 130_831}}
VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}
DIRECTIONS = np.concatenate([np.eye(3), -np.eye(3)])
BOND = 1.4
# Columns of gdb9.sdf.csv after mol_id.
COLUMNS = (
    *("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve"),
    *("u0", "u298", "h298", "g298", "cv", "u0_atom", "u298_atom", "h298_atom", "g298_atom"),
)
PACKAGE_COLUMNS = {
    "RotA_GHz": "A",
    "RotB_GHz": "B",
    "RotC_GHz": "C",
    "Dipole_debye": "mu",
    "Polarizability_bohr3": "alpha",
    "HOMO_au": "homo",
    "LUMO_au": "lumo",
    "HOMO_LUMO_gap_au": "gap",
    "R2_bohr2": "r2",
    "ZPVE_au": "zpve",
    "InternalEnergy_0K_au": "u0",
    "InternalEnergy_298K_au": "u298",
    "Enthalphy_298K_au": "h298",
    "GibbsFreeEnergy_298K_au": "g298",
    "Heatcapacity_Cv_cal_mol_K": "cv",
}
HARTREE_IN_KCAL_PER_MOL = HARTREE_IN_EV / KCAL_PER_MOL_IN_EV

Made = tuple[list[str], np.ndarray, dict[str, float]]


def write_molecules(
    root: Path,
    layout: str,
    sizes: Mapping[str, int],
    seed: int = 0,
    on_molecule: Callable[[], object] = lambda: None,
) -> None:
    """Writes made-up molecules as :func:`mtl_ext.data.qm9.qm9` reads them.

    Args:
        root: the data set's folder; for ``"qm9pack"``, the folder that holds the package.
        layout: ``"pyg"`` (processed/data_v3.pt), ``"raw"`` (raw/gdb9.sdf and its companions, every tenth molecule
            listed as uncharacterized) or ``"qm9pack"``.
        sizes: the number of ``molecules``.
        seed: of everything.
        on_molecule: called after every molecule.

    Raises:
        ValueError: an unknown layout.
    """
    check_choice("layout", layout, tuple(SIZES))
    rng = np.random.default_rng(seed)
    molecules = []
    for _ in range(sizes["molecules"]):
        molecules.append(make_molecule(rng))
        on_molecule()
    {"pyg": _write_pyg, "raw": _write_raw, "qm9pack": _write_package}[layout](root, molecules)


def make_molecule(rng: np.random.Generator) -> Made:
    """Elements, positions [A, 3] in angstrom and the 19 values of gdb9.sdf.csv, in its units."""
    heavy = [str(name) for name in rng.choice(list(VALENCE), int(rng.integers(2, 10)), p=(0.7, 0.12, 0.16, 0.02))]
    cells, elements, free = [np.zeros(3)], ["C"], [4]
    for element in (*heavy[1:], *["H"] * 20):
        places = [
            (parent, cell)
            for parent, left in enumerate(free)
            if left > 0
            for cell in cells[parent] + DIRECTIONS
            if not any((cell == other).all() for other in cells)
        ]
        if places:
            parent, cell = places[int(rng.integers(len(places)))]
            free[parent] -= 1
            cells.append(cell)
            elements.append(element)
            free.append(0 if element == "H" else VALENCE[element] - 1)
    positions = BOND * np.array(cells) + rng.normal(0.0, 0.08, (len(cells), 3))
    return elements, positions.round(6), _properties(elements, positions)


def _properties(elements: list[str], positions: np.ndarray) -> dict[str, float]:
    counts = np.array([elements.count(name) for name in ELEMENTS])
    charges = np.array([(0.1, 0.0, -0.3, -0.4, -0.2)[ELEMENTS.index(name)] for name in elements])
    centred = positions - positions.mean(0)
    extent = float((centred**2).sum())
    axes = np.sort(((centred**2).sum(0).sum() - (centred**2).sum(0)) + 1.0)
    values = dict(zip("ABC", (505.0 / axes).tolist(), strict=True))
    values["mu"] = float(np.linalg.norm(charges @ centred)) * 4.8
    values["alpha"] = float(counts @ (2.5, 8.5, 7.0, 5.0, 3.5))
    values["homo"] = -0.24 - 0.01 * charges.min() - 0.002 * np.sqrt(extent)
    values["lumo"] = 0.04 - 0.02 * float(counts[2] + counts[3]) / len(elements) + 0.001 * np.sqrt(extent)
    values["gap"] = values["lumo"] - values["homo"]
    values["r2"] = 60.0 + 9.0 * extent
    values["zpve"] = 0.008 * float(counts @ (1.2, 0.8, 0.8, 0.6, 0.5))
    bond_energy = -0.16 * (len(elements) - 1) - 0.01 * np.sqrt(extent)
    for shift, (name, energies) in enumerate(FREE_ATOMS.items()):
        of_atomisation = bond_energy - 0.003 * shift
        values[name] = of_atomisation + float(counts @ energies)
        values[f"{name}_atom"] = of_atomisation * HARTREE_IN_KCAL_PER_MOL
    values["cv"] = 3.0 + float(counts @ (1.2, 2.4, 2.2, 2.0, 2.1))
    return values


def _write_pyg(root: Path, molecules: list[Made]) -> None:
    counts = torch.tensor([0] + [len(elements) for elements, _, _ in molecules])
    numbers = [NUMBERS[ELEMENTS.index(name)] for elements, _, _ in molecules for name in elements]
    table = np.array([[values[name] for name in COLUMNS] for _, _, values in molecules])
    data = {
        "z": torch.tensor(numbers),
        "pos": torch.from_numpy(np.concatenate([positions for _, positions, _ in molecules])).float(),
        "y": torch.from_numpy(np.roll(table, -3, axis=1) * unit_factors()).float(),
        "idx": torch.arange(len(molecules)),
        "name": [f"gdb_{index + 1}" for index in range(len(molecules))],
    }
    one_each = torch.arange(len(molecules) + 1)
    slices = {"z": counts.cumsum(0), "pos": counts.cumsum(0), "y": one_each, "idx": one_each, "name": one_each}
    write_atomically(root / "processed" / "data_v3.pt", lambda file: torch.save((data, slices), file))


def _write_raw(root: Path, molecules: list[Made]) -> None:
    records, rows = [], [",".join(["mol_id", *COLUMNS])]
    for index, (elements, positions, values) in enumerate(molecules):
        atoms = [
            f"{x:10.4f}{y:10.4f}{z:10.4f} {name:3s} 0  0  0  0  0  0  0  0  0  0  0  0"
            for name, (x, y, z) in zip(elements, positions, strict=True)
        ]
        head = [f"gdb_{index + 1}", " made up", "", f"{len(elements):3d}  0  0  0  0  0  0  0  0  0999 V2000"]
        records.append("\n".join([*head, *atoms, "M  END", "$$$$", ""]))
        rows.append(",".join([f"gdb_{index + 1}", *(repr(float(values[name])) for name in COLUMNS)]))
    listed = [f"{index + 1:6d}  made up" for index in range(9, len(molecules), 10)]
    heading = ["Molecules to be left out", *[""] * 7, "=" * 20]
    write_text(root / "raw" / "gdb9.sdf", "".join(records))
    write_text(root / "raw" / "gdb9.sdf.csv", "\n".join(rows) + "\n")
    write_text(root / "raw" / "uncharacterized.txt", "\n".join([*heading, *listed, f"{len(listed)} molecules", ""]))


def _write_package(root: Path, molecules: list[Made]) -> None:
    header = ",".join(["XYZ_file", "Index", "SMILES", "N_atoms", "Elements", "XYZ_Ang", *PACKAGE_COLUMNS])
    rows = []
    for index, (elements, positions, values) in enumerate(molecules):
        names = ",".join(f"'{name}'" for name in elements)
        places = ",".join("[" + ",".join(f"{value:.10f}" for value in place) + "]" for place in positions)
        numbers = ",".join(repr(float(values[name])) for name in PACKAGE_COLUMNS.values())
        rows.append(
            f'"dsgdb9nsd_{index + 1:06d}.xyz",{index + 1},"",{len(elements)},"[{names}]","[{places}]",{numbers}'
        )
    write_text(root / "qm9pack" / "__init__.py", "")
    for part, start in enumerate(range(3)):
        text = "\n".join([header, *rows[start::3]]) + "\n"
        write_text(root / "qm9pack" / "data" / f"qm9_part{part + 1}.csv", text)
