//! Names of users and groups in an image: `--chown=app:staff` means what its /etc/passwd and /etc/group say.

use crate::error::Error;
use crate::store::Images;
use model::rootfs::Rootfs;
use model::users::id;

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
    // Of a line of passwd or group; none if it is not there, or no number.
    let number = |fields: &[String], at: usize| fields.get(at).map_or(Ok(None), |f| id(f));
    let (uid, own_group) = match id(user) {
        Err(refusal) => return Ok(Err(refusal.to_string())),
        Ok(Some(uid)) => (uid, uid),
        Ok(None) => match find(&read("/etc/passwd")?, user) {
            Some(fields) => match (number(&fields, 2), number(&fields, 3)) {
                (Ok(Some(uid)), Ok(Some(gid))) => (uid, gid),
                (Err(refusal), _) | (_, Err(refusal)) => return Ok(Err(refusal.to_string())),
                _ => return Ok(Err(format!("user {user} has no numbers in /etc/passwd"))),
            },
            None => return Ok(Err(format!("unable to find user {user}: no matching entries in passwd file"))),
        },
    };
    let gid = match group {
        None | Some("") => own_group,
        Some(group) => match id(group) {
            Err(refusal) => return Ok(Err(refusal.to_string())),
            Ok(Some(gid)) => gid,
            Ok(None) => match find(&read("/etc/group")?, group).map_or(Ok(None), |fields| number(&fields, 2)) {
                Ok(Some(gid)) => gid,
                Err(refusal) => return Ok(Err(refusal.to_string())),
                Ok(None) => return Ok(Err(format!("unable to find group {group}: no matching entries in group file"))),
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
