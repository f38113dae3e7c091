//! Who a container's process is: `USER`'s text, read against the image's `/etc/passwd` and `/etc/group` (passwd(5),
//! group(5)).

use crate::spec::User;

/// A user with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
    /// With `gid` first: a process that gives up its primary group is still held back by what that group may not
    /// (CVE-2022-36109).
    pub groups: Vec<u32>,
    pub home: String,
}

impl Account {
    pub fn user(&self) -> User {
        User { uid: self.uid, gid: self.gid, groups: self.groups.clone(), umask: None }
    }
}

/// Why there is no such user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
}

/// Resolves `user[:group]`, names or numbers; empty is root. `more` are the groups of `--group-add`.
///
/// # Errors
/// A name is in neither file.
pub fn resolve(text: &str, passwd: &str, group: &str, more: &[String]) -> Result<Account, Refusal> {
    let (user, given_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let known = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some((*name, uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?, *home))
    });
    let entry = {
        let entries: Vec<_> = known.collect();
        let by_name = entries.iter().find(|(name, ..)| *name == user).copied();
        by_name.or_else(|| entries.iter().find(|(_, uid, ..)| user.parse() == Ok(*uid)).copied())
    };
    let (name, uid, mut gid, home) = match (entry, user.parse::<u32>()) {
        (Some((name, uid, gid, home)), _) => (name, uid, gid, home),
        (None, Ok(uid)) => (user, uid, 0, "/"),
        (None, Err(_)) => return Err(Refusal::NoUser(user.to_owned())),
    };
    let groups: Vec<(&str, u32, &str)> = group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members, ..] = fields.as_slice() else { return None };
            Some((*name, gid.parse().ok()?, *members))
        })
        .collect();
    let find = |wanted: &str| {
        let by_name = groups.iter().find(|(name, ..)| *name == wanted).map(|g| g.1);
        by_name.or_else(|| wanted.parse().ok()).ok_or_else(|| Refusal::NoGroup(wanted.to_owned()))
    };
    let mut additional = Vec::new();
    match given_group.filter(|g| !g.is_empty()) {
        Some(group) => gid = find(group)?,
        None => {
            let is_member = |members: &str| members.split(',').any(|m| m == name);
            additional.extend(groups.iter().filter(|(_, _, members)| is_member(members)).map(|g| g.1));
        }
    }
    for group in more {
        additional.push(find(group)?);
    }
    let mut all = vec![gid];
    for group in additional {
        if !all.contains(&group) {
            all.push(group);
        }
    }
    Ok(Account { uid, gid, groups: all, home: if home.is_empty() { "/".into() } else { home.to_owned() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:web,other\n";

    #[test]
    fn users_are_names_or_numbers_known_or_not() {
        let check = |text: &str, uid, gid, groups: &[u32], home: &str| {
            let account = resolve(text, PASSWD, GROUP, &[]).unwrap();
            assert_eq!((account.uid, account.gid, account.groups.as_slice()), (uid, gid, groups), "{text}");
            assert_eq!(account.home, home, "{text}");
        };
        check("", 0, 0, &[0], "/root");
        check("web", 33, 34, &[34, 4], "/srv");
        check("33", 33, 34, &[34, 4], "/srv");
        check("web:adm", 33, 4, &[4], "/srv");
        check("1000", 1000, 0, &[0], "/");
        check("1000:2000", 1000, 2000, &[2000], "/");
        check(":adm", 0, 4, &[4], "/root");
        assert!(matches!(resolve("nobody", PASSWD, GROUP, &[]), Err(Refusal::NoUser(_))));
        assert!(matches!(resolve("web:nope", PASSWD, GROUP, &[]), Err(Refusal::NoGroup(_))));
        assert_eq!(resolve("web", PASSWD, GROUP, &["www".into(), "7".into()]).unwrap().groups, [34, 4, 7]);
    }
}
