//! Names of users and groups in an image: `--chown=app:staff` means what its /etc/passwd and /etc/group say.

use crate::error::Error;
use crate::store::Images;
use model::rootfs::Rootfs;

/// As much of them as anybody has.
const MAX: u64 = 16 << 20;

/// The owner that `user`, `user:group` or numbers mean in an image. A user's name alone brings the user's own group, a
/// number alone is the group's too.
pub(crate) fn owner(images: &Images, rootfs: &Rootfs, text: &str) -> Result<Result<(u32, u32), String>, Error> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let read = |path: &str| -> Result<String, Error> {
        let bytes = images.read_file(rootfs, path, MAX)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) => match find(&read("/etc/passwd")?, user) {
            Some(fields) => {
                match (fields.get(2).and_then(|f| f.parse().ok()), fields.get(3).and_then(|f| f.parse().ok())) {
                    (Some(uid), Some(gid)) => (uid, gid),
                    _ => return Ok(Err(format!("user {user} has no numbers in /etc/passwd"))),
                }
            }
            None => return Ok(Err(format!("unable to find user {user}: no matching entries in passwd file"))),
        },
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match group.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => match find(&read("/etc/group")?, group).and_then(|f| f.get(2).and_then(|g| g.parse().ok())) {
                Some(gid) => gid,
                None => return Ok(Err(format!("unable to find group {group}: no matching entries in group file"))),
            },
        },
    };
    Ok(Ok((uid, gid)))
}

fn find(file: &str, name: &str) -> Option<Vec<String>> {
    file.lines()
        .map(|line| line.split(':').map(|f| f.trim().to_owned()).collect::<Vec<_>>())
        .find(|fields| fields.first().is_some_and(|n| n == name))
}
