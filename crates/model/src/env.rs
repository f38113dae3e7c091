//! Environments: lists of `NAME=value` in which a name counts once.

/// The name of an entry.
pub fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

/// What a name has for a value; `None` where it has none.
pub fn value<'a>(env: &'a [String], name: &str) -> Option<&'a str> {
    env.iter().find_map(|entry| entry.split_once('=').filter(|(known, _)| *known == name).map(|(_, value)| value))
}

/// Joins `given` to `env`, in Docker's rules: what has the name of an entry takes its place, and a name without a value
/// takes the variable away.
pub fn merge<'a>(env: &mut Vec<String>, given: impl IntoIterator<Item = &'a String>) {
    for entry in given {
        let at = env.iter().position(|known| key(known) == key(entry));
        match (at, entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
}

/// Adds those of `more` whose names `env` does not have. A name without a value stays and counts: it is to take the variable
/// away.
pub fn complete<'a>(env: &mut Vec<String>, more: impl IntoIterator<Item = &'a String>) {
    for entry in more {
        if !env.iter().any(|known| key(known) == key(entry)) {
            env.push(entry.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_name_counts_once_and_alone_takes_its_variable_away() {
        let check = |env: &str, given: &str, expected: &str| {
            let mut env = list(env);
            merge(&mut env, &list(given));
            assert_eq!(env, list(expected), "{given}");
        };
        check("A=1 B=2", "B=3 C=4", "A=1 B=3 C=4");
        check("A=1 B=2", "A", "B=2");
        check("A=1", "B A= B", "A=");
        check("A=1", "A=2 A=3", "A=3");
        check("AB=1", "A=1=2", "AB=1 A=1=2");
        let env = list("AB=1 A=1=2 C");
        assert_eq!(["A", "AB", "B", "C"].map(|name| value(&env, name)), [Some("1=2"), Some("1"), None, None]);
    }

    #[test]
    fn what_is_missing_is_added() {
        let mut env = list("A=1 B");
        complete(&mut env, &list("A=2 B=2 C=3"));
        assert_eq!(env, list("A=1 B C=3"));
    }
}
