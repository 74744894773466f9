//! Makes people hard to tell for who does not know them: `alice@contoso.example` becomes `a…@c…`.
//!
//! Pure. Ids that say nothing about a person (numbers, UUIDs, hashes) stay, because `failures` wants them.

/// `a…@c…`; what is no e-mail is masked as a name.
pub fn email(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{}", initial(local), initial(domain)),
        None => name(text),
    }
}

/// The first letter of each word: `D… C… E…`.
pub fn name(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '-').filter(|word| !word.is_empty());
    words.map(initial).collect::<Vec<_>>().join(" ")
}

/// An id of a person: as it is if it cannot be a name.
pub fn id(text: &str) -> String {
    if text.contains('@') {
        return email(text);
    }
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let is_hex = text.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_plain = (is_hex && text.len() >= 16) || (digits > 0 && digits == text.chars().count());
    if is_plain { text.to_owned() } else { initial(text) }
}

/// A sentence: its e-mails.
pub fn sentence(text: &str) -> String {
    if !text.contains('@') {
        return text.to_owned();
    }
    let is_edge = |c: char| c.is_whitespace() || "\"'()<>,;:=[]{}".contains(c);
    let masked = |word: &str| if word.contains('@') { email(word) } else { word.to_owned() };
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if is_edge(c) {
            out.push_str(&masked(&std::mem::take(&mut word)));
            out.push(c);
        } else {
            word.push(c);
        }
    }
    out.push_str(&masked(&word));
    out
}

fn initial(text: &str) -> String {
    match text.chars().next() {
        Some(first) => format!("{first}…"),
        None => "…".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_masked_and_what_says_nothing_stays() {
        assert_eq!(email("alice@contoso.example"), "a…@c…");
        assert_eq!(email("@"), "…@…");
        assert_eq!(email(""), "");
        assert_eq!(name("Data-Carlos Echeverría"), "D… C… E…");
        assert_eq!(name("carlos.echeverria"), "c…");
        assert_eq!(id("alice"), "a…");
        assert_eq!(id("alice@x.test"), "a…@x…");
        assert_eq!(id("42"), "42");
        assert_eq!(id("deadbeef"), "d…");
        assert_eq!(id("0a1b2c3d-0000-4000-8000-00000000ad01"), "0a1b2c3d-0000-4000-8000-00000000ad01");
        assert_eq!(
            sentence("the e-mail <bob@x.test> is \"cy@y.test\"'s"),
            "the e-mail <b…@x…> is \"c…@y…\"'s"
        );
        assert_eq!(
            sentence("SQLSTATE 23505, constraint user_email_key"),
            "SQLSTATE 23505, constraint user_email_key"
        );
    }
}
