"Package metadata: read from settings.ini, its single source. Edit there, not here."
from configparser import ConfigParser
from pathlib import Path
import shlex

import setuptools

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
config = config["DEFAULT"]


def words(key: str) -> list[str]:
    "The shell-split words of one settings.ini value."
    return shlex.split(config.get(key, ""))


readme = here / "README.md"
setuptools.setup(
    version=config["version"],
    description=config["description"],
    keywords=config["keywords"],
    author=config["author"],
    author_email=config["author_email"],
    license="Apache-2.0",
    url=config["git_url"],
    packages=setuptools.find_packages(include=[config["lib_path"], config["lib_path"] + ".*"]),
    package_data={config["lib_path"]: ["py.typed"]},
    install_requires=words("requirements"),
    extras_require={key.removesuffix("_requirements"): words(key) for key in config if key.endswith("_requirements")},
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    classifiers=["Programming Language :: Python :: 3", "Intended Audience :: Science/Research"],
    entry_points={
        "console_scripts": words("console_scripts"),
        "nbdev": [f"{config['lib_path']}={config['lib_path']}._modidx:d"],
    },
)
