//! JSON that LiteLLM's columns hold, read as far as it is read at all.
//!
//! Owns taking an object or an array apart by one level. What is inside stays text, so it may be as deep and its numbers as
//! large as Postgres and LiteLLM take them: a parser of whole documents gives up on both, and what it gives up on would count
//! as "nothing said", which is the widest meaning of all. Pure; knows no column.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The members of an object, each as its JSON text; of a name that is there twice, the last. LiteLLM sometimes keeps JSON
/// inside a JSON string: that is looked into. `None`: it is no object.
pub fn object(sent: &str) -> Option<BTreeMap<String, Box<RawValue>>> {
    match serde_json::from_str::<String>(sent) {
        Ok(inner) => serde_json::from_str(&inner).ok(),
        Err(_) => serde_json::from_str(sent).ok(),
    }
}

/// The elements of an array, as [`object`].
pub fn array(sent: &str) -> Option<Vec<Box<RawValue>>> {
    match serde_json::from_str::<String>(sent) {
        Ok(inner) => serde_json::from_str(&inner).ok(),
        Err(_) => serde_json::from_str(sent).ok(),
    }
}

/// A JSON string's text. `None`: it is something else.
pub fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_may_be_as_deep_and_as_large_as_it_likes() {
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let sent = format!(r#"{{"a":"b","deep":{deep},"large":1e400,"a":"c"}}"#);
        for sent in [sent.clone(), serde_json::to_string(&sent).unwrap()] {
            let object = object(&sent).unwrap();
            assert_eq!(object.get("a").and_then(|value| text(value)).as_deref(), Some("c"));
            assert_eq!(object.get("large").map(|value| value.get()), Some("1e400"));
        }
        assert_eq!(array(&format!(r#"[{deep},1e400,"x"]"#)).unwrap().len(), 3);
        assert!(object("7").is_none() && object("[]").is_none() && object("nonsense").is_none());
        assert!(array("{}").is_none() && text(&array("[7]").unwrap()[0]).is_none());
    }
}
