"""The direction of imports, proven by walking them: downwards only, and TensorFlow in two rooms only."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for top in ("serving", "export", "clients") for path in (ROOT / top).rglob("*.py") if "_pb2" not in path.name
)

# room: the rooms below it. A room may import itself, what is named here, and nothing else of the project.
CONTRACT = {"serving.contract"}
RUNTIMES = CONTRACT | {"serving.runtimes"}
MIDDLE = RUNTIMES | {"serving.backend", "serving.local_calls"}
BELOW = {
    "serving.contract": set(),
    "serving.local_calls": CONTRACT,
    "serving.runtimes": CONTRACT,
    "serving.backend": RUNTIMES | {"serving.local_calls"},
    "serving.tfserving_rest": MIDDLE,
    "serving.faces": MIDDLE,
    "serving.prepare": MIDDLE,
    "serving.classify": MIDDLE | {"serving.prepare"},
    "serving.supervisor": CONTRACT,
    "serving.first_models": CONTRACT | {"serving.supervisor"},
    "serving.gateway": MIDDLE | {"serving.classify", "serving.prepare", "serving.faces", "serving.tfserving_rest"},
    "serving.tuning": MIDDLE | {"serving.gateway"},
    "serving.model_server": MIDDLE | {"serving.tfserving_rest"},
    "serving.__main__": MIDDLE | {"serving.gateway", "serving.supervisor", "serving.first_models", "serving.faces"},
    "export": MIDDLE | {"serving.classify", "serving.faces"},
    "clients": MIDDLE | {"serving.classify", "serving.faces"},
    "sightline": set(),  # the package that people import
    "sightline.grpc": MIDDLE | {"serving.classify", "serving.prepare"},
}
# The rooms of export: each may import those before it.
EXPORT = (
    "progress",
    "data",
    "networks",
    "trained_model",
    "adoption",
    "training",
    "artifact",
    "report",
    "options",
    "pipeline",
)
for name in (*EXPORT, "families", "__main__"):
    BELOW[f"export.{name}"] = set(BELOW["export"])
    BELOW["export"] |= {f"export.{name}"}
ENTRY_POINT = "sightline"  # the table of commands; entry points run themselves through it
TENSORFLOW = {"tensorflow", "keras", "tensorflow_serving", "sklearn"}
LATE = ["apispec", "cv2", "dlib", "opentelemetry"]  # what a process loads when it is asked for, if at all
MAY_TRAIN = ("serving.model_server", "serving.runtimes", "export")
CONTRACT_NEEDS = {"numpy", "PIL", "pillow_heif"}


def module_of(path: Path) -> str:
    root = ROOT / "clients" / "python" if "sightline" in path.parts else ROOT
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    return max((room for room in BELOW if f"{module}.".startswith(f"{room}.")), key=len, default=None)


def nearest(name: str, modules: set[str]) -> str | None:
    """The module that an imported name is, or belongs to; None where it is not one of ours."""
    return next((module for module in (name, name.rpartition(".")[0]) if module in modules), None)


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_downwards_only(path: Path) -> None:
    module = module_of(path)
    room = room_of(module)
    for name in imports_of(path):
        top = name.split(".")[0]
        if top not in ("serving", "export", "clients") or room is None:
            continue
        target = room_of(name)
        assert target == room or target in BELOW[room], f"{module} imports {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_of(path) for path in SOURCES}
    imported = {module_of(path): {nearest(name, modules) for name in imports_of(path)} for path in SOURCES}
    TopologicalSorter({module: names - {module, None} for module, names in imported.items()}).prepare()


PACKAGES = sorted(module_of(path) for path in SOURCES if path.name == "__init__.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_rooms_of_a_package_do_not_import_each_other_in_a_circle(package: str) -> None:
    def room(module: str | None) -> str:
        inside = (module or "").startswith(f"{package}.")
        return str(module).removeprefix(f"{package}.").split(".")[0] if inside else ""

    modules = {module_of(path) for path in SOURCES}
    imported: dict[str, set[str]] = {}
    for path in SOURCES:
        mine = room(module_of(path))
        imported.setdefault(mine, set()).update({room(nearest(name, modules)) for name in imports_of(path)} - {mine})
    del imported[""]
    TopologicalSorter({name: others - {""} for name, others in imported.items()}).prepare()


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_tensorflow_stays_in_its_rooms(path: Path) -> None:
    used = {name.split(".")[0] for name in imports_of(path)} & TENSORFLOW
    assert not used or module_of(path).startswith(MAY_TRAIN), f"{module_of(path)} imports {used}"


def test_the_contract_needs_numpy_pillow_and_its_plugin_only() -> None:
    for path in SOURCES:
        if module_of(path).startswith("serving.contract"):
            others = {name.split(".")[0] for name in imports_of(path)} - {"serving"} - CONTRACT_NEEDS
            assert others <= set(sys.stdlib_module_names), f"{module_of(path)} imports {others}"


@pytest.mark.integration
@pytest.mark.parametrize(
    "modules",
    [
        "serving.gateway.gunicorn.wsgi",
        "clients, sightline.client, clients.commands, clients.doctor",
        "sightline, serving.__main__",
    ],
)
def test_gateway_and_clients_leave_tensorflow_out(modules: str) -> None:
    code = f"import sys, {modules}; print([m for m in {sorted(TENSORFLOW)} + {LATE} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
