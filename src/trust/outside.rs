//! TLS with a server that is not of this cluster, such as an etcd: a CA of its own vouches for it, and it may want to
//! be shown a certificate.
//!
//! Who starts a connection and who only checks a configuration read the same files by the same function: what passes
//! the check is what is used.

use super::{
    identity::{certificates, fits, private_key, roots, validity},
    private::{TrustError, bad},
    tls,
};
use rustls::ClientConfig;
use std::{path::Path, time::SystemTime};

/// What is needed to speak to such a server.
#[derive(Debug)]
pub struct Outside {
    /// The settings of the connection, but for the protocol spoken inside.
    pub client: ClientConfig,
    /// When the certificate that is shown holds, from and until; nothing if none is shown.
    pub holds: Option<(SystemTime, SystemTime)>,
}

impl Outside {
    /// Reads the CA's certificate and, with `identity`, certificate and key to be shown. A certificate that has expired
    /// is no error: it is the server that judges it.
    ///
    /// # Errors
    /// If a file is missing, unreadable or not what it should be, the key can be read by others than its owner, or key
    /// and certificate do not belong together.
    pub fn load(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, TrustError> {
        let crypto = |e: rustls::Error| TrustError::Crypto(e.to_string());
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(crypto)?
            .with_root_certificates(roots(ca)?);
        let Some((cert, key)) = identity else {
            return Ok(Self { client: builder.with_no_client_auth(), holds: None });
        };
        let chain = certificates(cert)?;
        let leaf = chain.first().ok_or_else(|| bad(cert, "holds no certificate in PEM"))?;
        let holds = validity(leaf).map_err(|what| bad(cert, what))?;
        let secret = private_key(key)?;
        fits((cert, &chain), (key, &secret), "they must be made for each other")?;
        let client = builder.with_client_auth_cert(chain, secret).map_err(crypto)?;
        Ok(Self { client, holds: Some(holds) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

    /// `NAME.pem` and `NAME.key`.
    fn make(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec!["a client".to_owned()]).unwrap().self_signed(&key).unwrap();
        let (cert_path, key_path) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
        fs::write(&cert_path, cert.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        fs::set_permissions(&key_path, fs::Permissions::from_mode(0o600)).unwrap();
        (cert_path, key_path)
    }

    fn refusal(ca: &Path, cert: &Path, key: &Path) -> String {
        Outside::load(ca, Some((cert, key))).unwrap_err().to_string()
    }

    #[test]
    fn files_that_fit_are_taken_and_tell_until_when_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, _) = make(dir.path(), "ca");
        let (cert, key) = make(dir.path(), "client");
        let (from, until) = Outside::load(&ca, Some((&cert, &key))).unwrap().holds.unwrap();
        assert!(from < SystemTime::now() && SystemTime::now() + Duration::from_secs(3600) < until);
        assert!(Outside::load(&ca, None).unwrap().holds.is_none());
    }

    #[test]
    fn a_file_that_is_missing_senseless_open_to_others_or_of_another_pair_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, _) = make(dir.path(), "ca");
        let (cert, key) = make(dir.path(), "client");
        let (_, other) = make(dir.path(), "other");
        let (gone, empty) = (dir.path().join("gone"), dir.path().join("empty"));
        fs::write(&empty, "").unwrap();
        fs::set_permissions(&empty, fs::Permissions::from_mode(0o600)).unwrap();
        for bad in [&gone, &empty] {
            let name = bad.to_str().unwrap();
            assert!(refusal(bad, &cert, &key).contains(name));
            assert!(refusal(&ca, bad, &key).contains(name));
            assert!(refusal(&ca, &cert, bad).contains(name));
        }
        let told = refusal(&ca, &cert, &other);
        assert!(told.contains("other.key") && told.contains("client.pem"), "{told}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refusal(&ca, &cert, &key).contains("chmod 600"));
    }
}
