use std::os::unix::fs::PermissionsExt;

use super::*;

/// A key, its file and its recipient.
fn key(folder: &Path, name: &str) -> (Identities, Recipient) {
    use age::secrecy::ExposeSecret;
    let identity = age::x25519::Identity::generate();
    let path = folder.join(name);
    let text = format!("# public key: {}\n{}\n", identity.to_public(), identity.to_string().expose_secret());
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    (Identities::read([&path]).unwrap(), identity.to_public().to_string().parse().unwrap())
}

/// More than one block of age's, and less than two.
fn text() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).take(100_000).collect()
}

#[test]
fn what_is_encrypted_can_be_read_with_the_identity_and_with_no_other() {
    let lab = tempfile::tempdir().unwrap();
    let (ours, recipient) = key(lab.path(), "ours");
    let (others, other) = key(lab.path(), "others");
    let (encrypted, plain) = (lab.path().join("encrypted"), lab.path().join("plain"));
    for text in [text(), vec![3; 65_536], Vec::new()] {
        encrypt_to(std::slice::from_ref(&recipient), text.as_slice(), &encrypted).unwrap();
        assert_eq!(fs::metadata(&encrypted).unwrap().mode() & 0o777, 0o600);
        decrypt_to(&ours, &encrypted, &plain).unwrap();
        assert_eq!(fs::read(&plain).unwrap(), text);
        fs::remove_file(&plain).unwrap();
        assert!(matches!(decrypt_to(&others, &encrypted, &plain), Err(Undecrypted::ForOthers)));
        fs::remove_file(&plain).unwrap();
        fs::remove_file(&encrypted).unwrap();
    }
    encrypt_to(&[recipient, other], text().as_slice(), &encrypted).unwrap();
    decrypt_to(&others, &encrypted, &plain).unwrap();
}

#[test]
fn nothing_is_taken_for_what_was_encrypted_that_was_changed_or_cut_off() {
    let lab = tempfile::tempdir().unwrap();
    let (ours, recipient) = key(lab.path(), "ours");
    let (encrypted, plain) = (lab.path().join("encrypted"), lab.path().join("plain"));
    encrypt_to(&[recipient], text().as_slice(), &encrypted).unwrap();
    let whole = fs::read(&encrypted).unwrap();
    let block = whole.len() - (100_000 - 65_536) - 16;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let changed = [
        flipped(whole.len() - 1),
        flipped(whole.len() / 2),
        flipped(3),
        whole[..whole.len() - 1].to_vec(),
        // The whole first block, as if it were all.
        whole[..block].to_vec(),
        whole[..20].to_vec(),
        [whole.as_slice(), b"more"].concat(),
        Vec::new(),
    ];
    for (number, bytes) in changed.iter().enumerate() {
        fs::write(&encrypted, bytes).unwrap();
        let decrypted = decrypt_to(&ours, &encrypted, &plain);
        assert!(matches!(decrypted, Err(Undecrypted::Damaged(_))), "{number}: {decrypted:?}");
        fs::remove_file(&plain).unwrap();
    }
}

#[test]
fn an_identity_shows_only_its_public_half() {
    let lab = tempfile::tempdir().unwrap();
    let (identities, recipient) = key(lab.path(), "ours");
    let shown = format!("{identities:?}");
    assert_eq!(shown, format!("[\"{recipient}\"]"));
}
