//! Who a container's process is: `USER`'s text, read against the image's `/etc/passwd` and `/etc/group` (passwd(5),
//! group(5)).

use crate::spec::User;

/// A user with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its own number.
    pub uid: u32,
    /// Its primary group's.
    pub gid: u32,
    /// With `gid` first: a process that gives up its primary group is still held back by what that group may not
    /// (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// `$HOME`.
    pub home: String,
}

impl Account {
    /// The same, for a specification.
    pub fn user(&self) -> User {
        User { uid: self.uid, gid: self.gid, groups: self.groups.clone(), umask: None }
    }
}

/// Why there is no such user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says itself what it is")]
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
    let entry = find(passwd, |line| line.name() == user)
        .or_else(|| find(passwd, |line| number.is_some() && line.number(2) == Ok(number)));
    let (name, uid, mut gid, home) = match (entry, number) {
        (Some(line), _) => {
            let missing = || Refusal::NoUser(user.to_owned());
            let (uid, gid) = (line.number(2)?.ok_or_else(missing)?, line.number(3)?.ok_or_else(missing)?);
            (line.name(), uid, gid, line.field(5))
        }
        (None, Some(uid)) => (user, uid, 0, "/"),
        (None, None) => return Err(Refusal::NoUser(user.to_owned())),
    };
    let named = |wanted: &str| {
        let number = find(group, |line| line.name() == wanted).map(|line| line.number(2));
        number.unwrap_or_else(|| id(wanted))?.ok_or_else(|| Refusal::NoGroup(wanted.to_owned()))
    };
    let mut additional = Vec::new();
    match given_group.filter(|g| !g.is_empty()) {
        Some(group) => gid = named(group)?,
        None => {
            for line in lines(group).filter(|line| line.field(3).split(',').any(|member| member == name)) {
                additional.extend(line.number(2)?);
            }
        }
    }
    for group in more {
        additional.push(named(group)?);
    }
    let mut all = vec![gid];
    for group in additional {
        if !all.contains(&group) {
            all.push(group);
        }
    }
    Ok(Account { uid, gid, groups: all, home: if home.is_empty() { "/".into() } else { home.to_owned() } })
}

/// The owner that `user[:group]` means in an image, as `COPY --chown` has it: a number is itself, whoever has it. A
/// user's name alone brings the user's own group, a number alone is the group's too.
///
/// # Errors
/// A name is in neither file.
pub fn owner(text: &str, passwd: &str, group: &str) -> Result<(u32, u32), Refusal> {
    let (user, given_group) = text.split_once(':').unwrap_or((text, ""));
    let (uid, own_group) = match id(user)? {
        Some(uid) => (uid, uid),
        None => {
            let missing = || Refusal::NoUser(user.to_owned());
            let line = find(passwd, |line| line.name() == user).ok_or_else(missing)?;
            (line.number(2)?.ok_or_else(missing)?, line.number(3)?.ok_or_else(missing)?)
        }
    };
    let gid = match (given_group, id(given_group)?) {
        ("", _) => own_group,
        (_, Some(gid)) => gid,
        (name, None) => {
            let number = find(group, |line| line.name() == name).map_or(Ok(None), |line| line.number(2))?;
            number.ok_or_else(|| Refusal::NoGroup(name.to_owned()))?
        }
    };
    Ok((uid, gid))
}

/// Whether [`owner`] needs neither file.
pub fn are_numbers(text: &str) -> bool {
    text.split(':').all(|part| !matches!(id(part), Ok(None)))
}

/// A line of either file.
struct Line<'a>(Vec<&'a str>);

impl<'a> Line<'a> {
    fn field(&self, at: usize) -> &'a str {
        self.0.get(at).copied().unwrap_or_default()
    }

    fn name(&self) -> &'a str {
        self.field(0)
    }

    fn number(&self, at: usize) -> Result<Option<u32>, Refusal> {
        id(self.field(at))
    }
}

fn lines(file: &str) -> impl Iterator<Item = Line<'_>> {
    file.lines().map(|line| Line(line.split(':').map(str::trim).collect()))
}

fn find<'a>(file: &'a str, is_it: impl Fn(&Line<'a>) -> bool) -> Option<Line<'a>> {
    lines(file).find(is_it)
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

    #[test]
    fn an_owner_is_names_or_numbers_and_numbers_are_themselves() {
        let owner = |text| owner(text, PASSWD, GROUP);
        assert_eq!(owner("web"), Ok((33, 34)));
        assert_eq!(owner("web:adm"), Ok((33, 4)));
        assert_eq!(owner("web:"), Ok((33, 34)));
        assert_eq!(owner("33"), Ok((33, 33)));
        assert_eq!(owner("7:8"), Ok((7, 8)));
        assert_eq!(owner("nobody"), Err(Refusal::NoUser("nobody".into())));
        assert_eq!(owner("broken"), Err(Refusal::NoUser("broken".into())));
        assert_eq!(owner("web:nope"), Err(Refusal::NoGroup("nope".into())));
        assert_eq!(owner("4294967295"), Err(Refusal::Range));
        assert!(are_numbers("7:8") && are_numbers("7") && !are_numbers("web:8") && !are_numbers("7:adm"));
    }
}
