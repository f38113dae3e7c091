//! daemon.json: the same options as the flags, in a file. What it says is turned into flags, so that there is one parser;
//! what is said twice is refused, as dockerd does.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use serde_json::Value;
use std::collections::BTreeMap;

/// Keys that are called otherwise than their flags.
const KEYS: &[(&str, &str)] = &[
    ("authorization-plugins", "authorization-plugin"),
    ("cdi-spec-dirs", "cdi-spec-dir"),
    ("default-address-pools", "default-address-pool"),
    ("default-network-opts", "default-network-opt"),
    ("default-ulimits", "default-ulimit"),
    ("dns-opts", "dns-opt"),
    ("exec-opts", "exec-opt"),
    ("features", "feature"),
    ("host-gateway-ips", "host-gateway-ip"),
    ("hosts", "host"),
    ("insecure-registries", "insecure-registry"),
    ("labels", "label"),
    ("log-opts", "log-opt"),
    ("node-generic-resources", "node-generic-resource"),
    ("registry-mirrors", "registry-mirror"),
    ("runtimes", "add-runtime"),
    ("storage-opts", "storage-opt"),
];
/// Keys of earlier versions, called as their flags; the other key for the same is refused beside them.
const OLDER: [&str; 1] = ["host-gateway-ip"];
/// Flags that are no keys: they are about the start itself.
const NO_KEYS: [&str; 5] = ["config-file", "validate", "help", "shim", "resolved-conf"];
/// Keys that have no flag, and no meaning here.
const IDLE: [&str; 1] = ["builder"];

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("{0}")]
    Json(String),
    #[error("the following directives don't match any configuration option: {0}")]
    Unknown(String),
    #[error("the following directives are specified both as a flag and in the configuration file: {0}")]
    Twice(String),
    #[error("the following directives are the same option, of which one is to be given: {0}, {1}")]
    Same(&'static str, &'static str),
    #[error("the value of {0} is none that it can have: {1}")]
    Value(String, Value),
}

/// The flags that the file stands for. `given` is what the command line says already.
///
/// # Errors
/// See [`Wrong`].
pub fn flags(text: &str, command: &Command, given: &ArgMatches) -> Result<Vec<String>, Wrong> {
    let mut file: BTreeMap<String, Value> = match text.trim() {
        "" => BTreeMap::new(),
        text => serde_json::from_str(text).map_err(|e| Wrong::Json(e.to_string()))?,
    };
    if let Some(Value::Object(proxies)) = file.remove("proxies") {
        file.extend(proxies);
    }
    let has_both =
        |(key, flag): &&(&str, &str)| OLDER.contains(flag) && file.contains_key(*key) && file.contains_key(*flag);
    if let Some((key, flag)) = KEYS.iter().find(has_both) {
        return Err(Wrong::Same(flag, key));
    }
    let (mut flags, mut unknown, mut twice) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in &file {
        if IDLE.contains(&key.as_str()) {
            continue;
        }
        let flag = KEYS.iter().find(|(k, _)| k == key).map_or(key.as_str(), |(_, flag)| flag);
        let is_listed = KEYS.iter().any(|(k, f)| k == key || *f == key);
        let has_name = |arg: &&clap::Arg| {
            arg.get_long() == Some(flag) || arg.get_all_aliases().into_iter().flatten().any(|alias| alias == flag)
        };
        let Some(arg) = command.get_arguments().find(has_name) else {
            unknown.push(key.as_str());
            continue;
        };
        // `label` is a flag, and `labels` the key.
        if NO_KEYS.contains(&flag) || is_listed && flag == key && !OLDER.contains(&flag) {
            unknown.push(key.as_str());
            continue;
        }
        let values = values(flag, value).ok_or_else(|| Wrong::Value(key.clone(), value.clone()))?;
        if given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
            let raw = given.get_raw(arg.get_id().as_str()).into_iter().flatten();
            let from_flag: Vec<String> = raw.map(|v| v.to_string_lossy().into_owned()).collect();
            let shown =
                |values: &[String]| if value.is_array() { format!("[{}]", values.join(" ")) } else { values.join(" ") };
            twice.push(format!("{key}: (from flag: {}, from file: {})", shown(&from_flag), shown(&values)));
        }
        flags.extend(values.into_iter().map(|value| format!("--{flag}={value}")));
    }
    match (unknown.is_empty(), twice.is_empty()) {
        (false, _) => Err(Wrong::Unknown(unknown.join(", "))),
        (true, false) => Err(Wrong::Twice(twice.join(", "))),
        (true, true) => Ok(flags),
    }
}

/// A key's value as its flag's values.
fn values(flag: &str, value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(list) => list.iter().map(|one| scalar(one).or_else(|| pool(one))).collect(),
        Value::Object(map) => {
            let per_name = map.iter().map(|(name, value)| match flag {
                "default-ulimit" => Some(vec![format!("{name}={}:{}", value.get("Soft")?, value.get("Hard")?)]),
                "default-network-opt" => {
                    let options = value.as_object()?.iter();
                    options.map(|(key, value)| Some(format!("{name}={key}={}", scalar(value)?))).collect()
                }
                "add-runtime" => Some(vec![name.clone()]),
                "log-opt" | "feature" => Some(vec![format!("{name}={}", scalar(value)?)]),
                _ => None,
            });
            let all: Option<Vec<Vec<String>>> = per_name.collect();
            all.map(|lists| lists.concat())
        }
        one => scalar(one).map(|one| vec![one]),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// `{"base": "10.0.0.0/8", "size": 24}`.
fn pool(value: &Value) -> Option<String> {
    Some(format!("base={},size={}", value.get("base")?.as_str()?, value.get("size")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction};

    fn command() -> Command {
        let list = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
        let flags = [
            "bip",
            "mtu",
            "debug",
            "label",
            "host",
            "dns",
            "default-address-pool",
            "log-opt",
            "default-ulimit",
            "default-network-opt",
            "add-runtime",
            "http-proxy",
            "host-gateway-ip",
            "config-file",
        ];
        Command::new("dockerd").args(flags.map(list)).arg(list("root").alias("data-root"))
    }

    fn read(file: &str, words: &[&str]) -> Result<Vec<String>, String> {
        let given = command().get_matches_from(["dockerd"].iter().chain(words));
        flags(file, &command(), &given).map_err(|e| e.to_string())
    }

    #[test]
    fn keys_become_flags() {
        let check = |file: &str, expected: &[&str]| {
            let expected: Vec<String> = expected.iter().map(|f| (*f).to_owned()).collect();
            assert_eq!(read(file, &["--host", "unix:///x"]), Ok(expected), "{file}");
        };
        check("", &[]);
        check(
            r#"{"bip": "10.0.0.1/24", "mtu": 1400, "debug": true}"#,
            &["--bip=10.0.0.1/24", "--debug=true", "--mtu=1400"],
        );
        check(r#"{"data-root": "/x", "labels": ["a=b", "c"]}"#, &["--data-root=/x", "--label=a=b", "--label=c"]);
        check(
            r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}"#,
            &["--default-address-pool=base=10.0.0.0/8,size=24"],
        );
        check(r#"{"log-opts": {"max-file": 3, "max-size": "1m"}}"#, &["--log-opt=max-file=3", "--log-opt=max-size=1m"]);
        check(
            r#"{"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 64, "Hard": 128}}}"#,
            &["--default-ulimit=nofile=64:128"],
        );
        check(
            r#"{"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1234"}}}"#,
            &["--default-network-opt=bridge=com.docker.network.driver.mtu=1234"],
        );
        check(r#"{"runtimes": {"crun": {"path": "crun"}}, "builder": {"gc": {}}}"#, &["--add-runtime=crun"]);
        check(r#"{"host-gateway-ip": "192.0.2.1"}"#, &["--host-gateway-ip=192.0.2.1"]);
        check(
            r#"{"host-gateway-ips": ["192.0.2.1", "2001:db8::1"]}"#,
            &["--host-gateway-ip=192.0.2.1", "--host-gateway-ip=2001:db8::1"],
        );
        check(r#"{"proxies": {"http-proxy": "http://p"}}"#, &["--http-proxy=http://p"]);
    }

    #[test]
    fn what_is_said_twice_or_unknown_is_refused_in_dockerds_words() {
        let refused = |file: &str, words: &[&str]| read(file, words).unwrap_err();
        assert_eq!(
            refused(r#"{"bip": "10.0.0.1/24", "labels": ["a"]}"#, &["--bip=10.9.0.1/24", "--label=b"]),
            "the following directives are specified both as a flag and in the configuration file: \
             bip: (from flag: 10.9.0.1/24, from file: 10.0.0.1/24), labels: (from flag: [b], from file: [a])"
        );
        let unknown = "the following directives don't match any configuration option: ";
        assert_eq!(refused(r#"{"nosuch": 1, "bib": "x"}"#, &[]), format!("{unknown}bib, nosuch"));
        assert_eq!(refused(r#"{"label": "a"}"#, &[]), format!("{unknown}label"));
        assert_eq!(refused(r#"{"config-file": "a"}"#, &[]), format!("{unknown}config-file"));
        assert!(refused(r#"{"host-gateway-ip": "::1", "host-gateway-ips": []}"#, &[]).contains("are the same option"));
        assert!(refused(r#"{"bip": null}"#, &[]).contains("bip"));
        assert!(refused("{", &[]).contains("EOF"));
    }
}
