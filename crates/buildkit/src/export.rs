//! What becomes of a built image: names in our store, or an archive or files for the client.

use crate::BuildKit;
use crate::builds::Build;
use crate::solve::status;
use bollard_buildkit_proto::moby::buildkit::v1::Exporter;
use model::image::ImageId;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Status;

impl BuildKit {
    /// Does what each exporter wants; what clients are told of the result.
    pub(crate) async fn export(
        self: &Arc<Self>,
        build: &Build,
        session: &str,
        image: &ImageId,
        exporters: &[Exporter],
    ) -> Result<HashMap<String, String>, Status> {
        let mut said = HashMap::new();
        for (number, exporter) in exporters.iter().enumerate() {
            let names: Vec<&str> =
                exporter.attrs.get("name").map(String::as_str).unwrap_or_default().split(',').collect();
            let names: Vec<&str> = names.into_iter().filter(|n| !n.is_empty()).collect();
            let kind = exporter.r#type.as_str();
            let step = build.progress.begin(match kind {
                "local" => "exporting to client directory",
                "tar" => "exporting to client tarball",
                _ => "exporting to image",
            });
            let exported = async {
                match kind {
                    "moby" | "image" => self.name(build, &step, image, &names).await?,
                    "docker" | "oci" => {
                        self.name(build, &step, image, &names).await?;
                        let names = match names.as_slice() {
                            [] => vec![image.to_string()],
                            names => names.iter().map(|n| (*n).to_owned()).collect(),
                        };
                        self.send_archive(session, number, names).await?;
                    }
                    "tar" => self.send_files_as_tar(session, number, image).await?,
                    "local" => return self.send_files(session, number, image).await,
                    other => return Err(Status::unimplemented(format!("exporter {other} could not be found"))),
                }
                Ok(())
            };
            let exported = exported.await;
            build.progress.end(step, exported.as_ref().err().map(Status::message));
            exported?;
            if !matches!(kind, "local" | "tar") {
                said.insert("containerimage.digest".to_owned(), image.to_string());
                said.insert("containerimage.config.digest".to_owned(), image.to_string());
                if !names.is_empty() {
                    said.insert("image.name".to_owned(), names.join(","));
                }
            }
        }
        Ok(said)
    }

    async fn name(
        &self,
        build: &Build,
        step: &crate::progress::Step,
        image: &ImageId,
        names: &[&str],
    ) -> Result<(), Status> {
        build.progress.at(step, &format!("writing image {image}"), 0, 0, true);
        for name in names {
            self.engine.tag_image(image.as_str(), name).await.map_err(status)?;
            build.progress.at(step, &format!("naming to {name}"), 0, 0, true);
        }
        Ok(())
    }
}
