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
    /// Docker's range, and the kernel's -1 is no id at all.
    #[error("uids and gids must be in range 0-{MAX_ID}")]
    Range,
}

/// The highest number of a user or group.
pub const MAX_ID: u32 = i32::MAX as u32;

/// A user's or group's number; none if the text is no number.
///
/// # Errors
/// It is out of range.
pub fn id(text: &str) -> Result<Option<u32>, Refusal> {
    match text.parse::<i128>() {
        Ok(number) => u32::try_from(number).ok().filter(|n| *n <= MAX_ID).map(Some).ok_or(Refusal::Range),
        Err(_) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => Err(Refusal::Range),
        Err(_) => Ok(None),
    }
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
    let number = id(user)?;
    let known = passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        Some((*name, id(uid), id(gid), *home))
    });
    let entry = {
        let entries: Vec<_> = known.collect();
        let by_name = entries.iter().find(|(name, ..)| *name == user).cloned();
        by_name.or_else(|| entries.iter().find(|(_, uid, ..)| number.is_some() && *uid == Ok(number)).cloned())
    };
    let (name, uid, mut gid, home) = match (entry, number) {
        (Some((name, uid, gid, home)), _) => {
            let missing = || Refusal::NoUser(user.to_owned());
            (name, uid?.ok_or_else(missing)?, gid?.ok_or_else(missing)?, home)
        }
        (None, Some(uid)) => (user, uid, 0, "/"),
        (None, None) => return Err(Refusal::NoUser(user.to_owned())),
    };
    let groups: Vec<_> = group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members, ..] = fields.as_slice() else { return None };
            Some((*name, id(gid), *members))
        })
        .collect();
    let find = |wanted: &str| {
        let by_name = groups.iter().find(|(name, ..)| *name == wanted).map(|g| g.1.clone());
        by_name.unwrap_or_else(|| id(wanted))?.ok_or_else(|| Refusal::NoGroup(wanted.to_owned()))
    };
    let mut additional = Vec::new();
    match given_group.filter(|g| !g.is_empty()) {
        Some(group) => gid = find(group)?,
        None => {
            let is_member = |members: &str| members.split(',').any(|m| m == name);
            for (_, gid, _) in groups.iter().filter(|(_, _, members)| is_member(members)) {
                additional.extend(gid.clone()?);
            }
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
    fn numbers_are_in_range_wherever_they_come_from() {
        const PASSWD: &str = "root:x:0:0::/:\nbad:x:4294967295:0::/:\nworse:x:7:2147483648::/:\n";
        const GROUP: &str = "bad:x:4294967295:\nother:x:-1:seven\n";
        for text in ["4294967295", "2147483648", "-1", "0:4294967295", "0:bad", "bad", "worse", "99999999999999999999"]
        {
            assert_eq!(resolve(text, PASSWD, GROUP, &[]), Err(Refusal::Range), "{text}");
        }
        assert_eq!(resolve("7", "seven:x:7:7::/:", GROUP, &[]), Err(Refusal::Range));
        assert_eq!(resolve("0", PASSWD, GROUP, &["4294967295".into()]), Err(Refusal::Range));
        assert_eq!(resolve("2147483647", PASSWD, GROUP, &[]).unwrap().uid, MAX_ID);
        assert_eq!(Refusal::Range.to_string(), "uids and gids must be in range 0-2147483647");
    }

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
