//! Mending: one difference after the other, past failures.

use super::*;

impl Inner {
    pub(super) fn mend_all(
        &self,
        repairs: &[Repair],
        desired: &Desired,
        observed: &Observed,
        sandbox: &impl Fn(&SandboxId) -> Option<Arc<Sandbox>>,
    ) -> Report {
        let mut report = Report::default();
        for repair in repairs {
            self.mend(repair, desired, observed, sandbox, &mut report);
        }
        report
    }

    fn mend(
        &self,
        repair: &Repair,
        desired: &Desired,
        observed: &Observed,
        sandbox: &impl Fn(&SandboxId) -> Option<Arc<Sandbox>>,
        report: &mut Report,
    ) {
        let (done, into_removed, what) = match repair {
            Repair::Rebuild(elements) => (self.tables.rebuild(elements), false, "firewall tables".to_owned()),
            Repair::Elements(out, into) => {
                let done = self.tables.change(out, into).attempt("mend", "firewall elements");
                (done, false, format!("{} firewall elements out, {} in", out.len(), into.len()))
            }
            Repair::RemoveLink(name) => (self.delete_link(name), true, format!("interface {name}")),
            Repair::Bridge(bridge) => {
                let mut done = self.create_bridge(bridge);
                // its ports may be without a master, and what changes a bridge makes the host forget its neighbours
                let members = desired.attachments.values().filter(|a| a.network == bridge.network);
                for member in members.filter(|a| observed.links.contains_key(a.outer.as_str())) {
                    done = done.and(self.mend_port(member));
                }
                (done, false, format!("bridge {}", bridge.device))
            }
            Repair::Parent(parent) => (self.create_parent(parent), false, format!("interface {}", parent.device)),
            Repair::Attach(attachment) => {
                let done = match sandbox(&attachment.sandbox) {
                    Some(sandbox) => self.attach(&sandbox, std::slice::from_ref(attachment)),
                    None => Err(Error::Io {
                        attempt: "find",
                        thing: format!("sandbox {}", attachment.sandbox.short()),
                        source: io::ErrorKind::NotFound.into(),
                    }),
                };
                (done, false, format!("endpoint {}", attachment.outer))
            }
            Repair::Port(attachment) => (self.mend_port(attachment), false, format!("port {}", attachment.outer)),
            Repair::RemoveNeighbour(neighbour) => {
                let mut batch = Batch::default();
                neighbour::remove(&mut batch, neighbour.link, neighbour.ip);
                let done = unless_gone(self.with_route(|socket| socket.send(batch)));
                let what = format!("neighbour {}", neighbour.ip);
                (done.attempt("forget", what.clone()), true, what)
            }
        };
        match done {
            Ok(()) if into_removed => report.removed.push(what),
            Ok(()) => report.mended.push(what),
            Err(error) => report.failed.push(error),
        }
    }
}
