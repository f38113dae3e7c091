//! Build arguments: which a stage may see, and what they are there.
//!
//! An argument counts where an `ARG` names it. Its value is what the caller gave, else the `ARG`'s own default, else
//! that of an `ARG` before the first `FROM`, else (for `TARGETARCH` and its like) what the platform says. Proxies are
//! seen by every `RUN` without being named, and do not count in the cache's key then.

use super::words::Lookup;
use model::image::Platform;
use std::collections::BTreeMap;

const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of a build, as one stage sees them.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    /// What the caller gave; None is an argument without a value, which counts as not given.
    given: BTreeMap<String, Option<String>>,
    /// What the platforms say.
    automatic: BTreeMap<String, String>,
    /// From before the first `FROM`.
    global: BTreeMap<String, Option<String>>,
    /// Named in this stage.
    named: BTreeMap<String, Option<String>>,
    /// Named anywhere.
    used: Vec<String>,
}

impl Args {
    pub(crate) fn new(given: BTreeMap<String, Option<String>>, target: &Platform) -> Self {
        let mut automatic = BTreeMap::new();
        for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
            automatic.insert(format!("{prefix}PLATFORM"), platform.to_string());
            automatic.insert(format!("{prefix}OS"), platform.os.clone());
            automatic.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            automatic.insert(format!("{prefix}VARIANT"), platform.variant.clone());
        }
        Self { given, automatic, global: BTreeMap::new(), named: BTreeMap::new(), used: Vec::new() }
    }

    /// An `ARG` before the first `FROM`; its default is expanded.
    pub(crate) fn add_global(&mut self, name: &str, default: Option<String>) {
        self.used.push(name.to_owned());
        let value = self.given(name).or(default).or_else(|| self.automatic.get(name).cloned());
        self.global.insert(name.to_owned(), value);
    }

    /// An `ARG` in a stage; its default is expanded.
    pub(crate) fn add(&mut self, name: &str, default: Option<String>) {
        self.used.push(name.to_owned());
        let value = self
            .given(name)
            .or(default)
            .or_else(|| self.global.get(name).cloned().flatten())
            .or_else(|| self.automatic.get(name).cloned());
        self.named.insert(name.to_owned(), value);
    }

    /// A new stage names its own.
    pub(crate) fn begin_stage(&mut self) {
        self.named.clear();
    }

    fn given(&self, name: &str) -> Option<String> {
        self.given.get(name).cloned().flatten()
    }

    /// What `FROM` sees.
    pub(crate) fn global(&self, name: &str) -> Option<String> {
        match self.global.get(name) {
            Some(value) => value.clone(),
            None => self.automatic.get(name).cloned(),
        }
    }

    /// What an instruction of the stage sees; `env` goes before.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.named.get(name).cloned().flatten()
    }

    /// The arguments that `RUN` has in its environment, beside `env`: named ones first, which count in the cache's key,
    /// then proxies, which do not.
    pub(crate) fn for_run(&self, env: Lookup<'_>) -> (Vec<String>, Vec<String>) {
        let free = |name: &str| env(name).is_none();
        let text = |name: &str, value: &str| format!("{name}={value}");
        let named = self.named.iter().filter_map(|(n, v)| Some((n, v.as_ref()?)));
        let named: Vec<String> = named.filter(|(n, _)| free(n)).map(|(n, v)| text(n, v)).collect();
        let proxies = PROXIES.iter().filter(|n| free(n) && !self.named.contains_key(**n));
        let proxies = proxies.filter_map(|n| self.given(n).map(|v| text(n, &v))).collect();
        (named, proxies)
    }

    /// What was given and nobody asked for.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let known =
            |n: &&str| PROXIES.contains(n) || self.automatic.contains_key(*n) || self.used.iter().any(|u| u == n);
        self.given.keys().map(String::as_str).filter(|n| !known(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_where_docker_takes_them() {
        let given = BTreeMap::from([
            ("given".to_owned(), Some("caller".to_owned())),
            ("bare".to_owned(), None),
            ("http_proxy".to_owned(), Some("p".to_owned())),
            ("nobody".to_owned(), Some("x".to_owned())),
        ]);
        let mut args = Args::new(given, &"linux/arm/v7".parse().unwrap());
        args.add_global("version", Some("1".into()));
        args.add_global("given", Some("default".into()));
        assert_eq!(args.global("version").as_deref(), Some("1"));
        assert_eq!(args.global("given").as_deref(), Some("caller"));
        assert_eq!(args.global("TARGETARCH").as_deref(), Some("arm"));
        assert_eq!(args.value("version"), None, "a stage names its own");
        args.add("version", None);
        args.add("given", None);
        args.add("bare", Some("default".into()));
        args.add("own", Some("o".into()));
        args.add("TARGETVARIANT", None);
        args.add("empty", None);
        for (name, value) in
            [("version", "1"), ("given", "caller"), ("bare", "default"), ("own", "o"), ("TARGETVARIANT", "v7")]
        {
            assert_eq!(args.value(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(args.value("empty"), None);
        let env = |name: &str| (name == "own").then(|| "by env".to_owned());
        let (named, proxies) = args.for_run(&env);
        assert_eq!(named, ["TARGETVARIANT=v7", "bare=default", "given=caller", "version=1"]);
        assert_eq!(proxies, ["http_proxy=p"]);
        assert_eq!(args.unused(), ["nobody"]);
        args.begin_stage();
        assert_eq!(args.value("own"), None);
    }
}
