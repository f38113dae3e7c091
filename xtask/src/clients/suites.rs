//! The suites: how each is had, and how it is run.

use crate::run;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub struct Suite {
    pub name: &'static str,
    /// In a few words: whose it is, and of which version.
    pub what: &'static str,
    /// How long it may take.
    pub limit: Duration,
    /// Installs it below a directory, once; how it is run.
    pub prepare: fn(&Path) -> anyhow::Result<Prepared>,
}

/// A suite that can be run.
pub struct Prepared {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub directory: PathBuf,
    pub variables: Vec<(String, String)>,
}

pub const SUITES: &[Suite] = &[
    Suite {
        name: "docker-py",
        what: "docker-py 7.1.0, with the integration tests of its source package 6.1.3, the last that has them",
        limit: Duration::from_secs(1200),
        prepare: docker_py,
    },
    Suite {
        name: "aiodocker",
        what: "aiodocker 0.27.0's tests, of its source package",
        limit: Duration::from_secs(900),
        prepare: aiodocker,
    },
    Suite {
        name: "compose-acceptance",
        what: "docker-compose 1.29.2's acceptance tests, of its source package",
        limit: Duration::from_secs(1800),
        prepare: |workshop| compose(workshop, "tests/acceptance"),
    },
    Suite {
        name: "compose-integration",
        what: "docker-compose 1.29.2's integration tests, of its source package",
        limit: Duration::from_secs(1800),
        prepare: |workshop| compose(workshop, "tests/integration"),
    },
    Suite {
        name: "testcontainers-python",
        what: "Testcontainers for Python 4.14.2, by tests of ours after its documentation",
        limit: Duration::from_secs(300),
        prepare: testcontainers,
    },
];

fn docker_py(workshop: &Path) -> anyhow::Result<Prepared> {
    let source = source(workshop, "docker", "6.1.3", "docker-6.1.3")?;
    let packages = ["docker[websockets]==7.1.0", "paramiko", "pytest==7.4.4", "pytest-timeout", "setuptools<81"];
    let python = environment(workshop, "docker-py", &packages)?;
    let mut prepared = pytest(python, &source, "tests/integration");
    // Credential helpers are no business of an engine's.
    prepared.arguments.extend(["--timeout", "60", "--ignore", "tests/integration/credentials"].map(str::to_owned));
    // Else its own `docker` directory, of another version, would be imported.
    std::fs::rename(source.join("docker"), source.join("docker-of-source")).or_else(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    })?;
    prepared.variables.push(("DOCKER_TEST_API_VERSION".to_owned(), "1.45".to_owned()));
    Ok(prepared)
}

const AIODOCKER: &[&str] = &[
    "aiodocker==0.27.0",
    "async-timeout",
    "packaging",
    "pytest==9.0.3",
    "pytest-asyncio==1.3.0",
    "pytest-cov",
    "pytest-timeout",
    "testcontainers==4.14.2",
    "asyncssh",
    "paramiko",
];

fn aiodocker(workshop: &Path) -> anyhow::Result<Prepared> {
    let source = source(workshop, "aiodocker", "0.27.0", "aiodocker-0.27.0")?;
    let python = environment(workshop, "aiodocker", AIODOCKER)?;
    let mut prepared = pytest(python, &source, "tests");
    prepared.arguments.extend(["--timeout", "60", "--no-cov"].map(str::to_owned));
    Ok(prepared)
}

/// In the environment of aiodocker's tests, which use it, too.
fn testcontainers(workshop: &Path) -> anyhow::Result<Prepared> {
    let python = environment(workshop, "aiodocker", AIODOCKER)?;
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let mut prepared = pytest(python, &ours, "testcontainers_test.py");
    prepared.arguments.extend(["--timeout", "90"].map(str::to_owned));
    Ok(prepared)
}

/// By Debian's Python, which has Compose's own modules; the tests' source stands aside of them.
fn compose(workshop: &Path, tests: &str) -> anyhow::Result<Prepared> {
    let source = source(workshop, "docker-compose", "1.29.2", "docker-compose-1.29.2")?;
    let packages = workshop.join("compose-packages");
    if !packages.join("pytest").exists() {
        run(Command::new("python3").args(["-m", "pip", "install", "--quiet", "--target"]).arg(&packages).args([
            "pytest==7.4.4",
            "pytest-timeout",
            "ddt",
        ]))?;
    }
    let mut prepared = pytest("/usr/bin/python3".into(), &source, tests);
    prepared.arguments.extend(["--timeout", "120", "-o", "junit_family=xunit2"].map(str::to_owned));
    let (_, path) = prepared.variables.iter_mut().find(|(name, _)| name == "PYTHONPATH").context("PYTHONPATH")?;
    *path = format!("{path}:{}", packages.display());
    Ok(prepared)
}

fn pytest(python: PathBuf, source: &Path, tests: &str) -> Prepared {
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let arguments = ["-m", "pytest", "-p", "outcomes", "-p", "no:cacheprovider", "-v", "--tb=short", "-rs", tests];
    Prepared {
        program: python,
        arguments: arguments.map(str::to_owned).to_vec(),
        directory: source.to_owned(),
        variables: vec![
            ("PYTHONPATH".to_owned(), plugin.display().to_string()),
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
        ],
    }
}

/// A virtual environment of Python's with packages; its interpreter.
fn environment(workshop: &Path, name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = workshop.join("environments").join(name);
    let python = directory.join("bin/python3");
    let done = directory.join("installed");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == packages.join(" ")) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    std::fs::write(done, packages.join(" "))?;
    Ok(python)
}

/// A source package of Python's, unpacked; where.
fn source(workshop: &Path, package: &str, version: &str, name: &str) -> anyhow::Result<PathBuf> {
    let sources = workshop.join("sources");
    let directory = sources.join(name);
    if directory.exists() {
        return Ok(directory);
    }
    std::fs::create_dir_all(&sources)?;
    let archive = sources.join(format!("{name}.tar.gz"));
    if !archive.exists() {
        // Old ones say what they need by setuptools of their time.
        let constraints = sources.join("constraints.txt");
        std::fs::write(&constraints, "setuptools<70\n")?;
        run(Command::new("python3")
            .args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--no-binary",
                package,
            ])
            .arg("--dest")
            .arg(&sources)
            .arg(format!("{package}=={version}"))
            .env("PIP_CONSTRAINT", constraints))?;
    }
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&sources))?;
    Ok(directory)
}
