//! A set of models, as one bit per known model. Pure.

/// Which of the known models, by their place in the known_models.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bits(Vec<u64>);

impl Bits {
    pub fn none(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    pub fn all(len: usize) -> Self {
        let mut bits = Self::none(len);
        for place in 0..len {
            bits.insert(place);
        }
        bits
    }

    pub fn insert(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    pub fn contains(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Keeps what is in both.
    pub fn narrow(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
    }

    /// Adds what is in the other.
    pub fn widen(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_across_words_narrow_and_widen() {
        let mut odd = Bits::none(130);
        (1..130).step_by(2).for_each(|place| odd.insert(place));
        let mut some = Bits::none(130);
        for place in [0, 1, 63, 64, 129] {
            some.insert(place);
        }
        let mut both = some.clone();
        both.narrow(&odd);
        assert_eq!(both.places().collect::<Vec<_>>(), [1, 63, 129]);
        some.widen(&odd);
        assert_eq!(some.places().count(), 67);
        assert_eq!(Bits::all(130).places().count(), 130);
        assert!(Bits::none(0).is_empty() && !both.contains(64) && both.contains(129));
    }
}
