//! Answers to builds that ask whether they would have anything to do, see `ask`. Only ever that they would not.

use std::collections::HashMap;

use super::ask::{Fresh, Question};
use super::desk::Asked;
use super::{Host, Open, Watch};
use crate::engine::{self, Surrounding};
use crate::event::Event;
use crate::plan::Index;

/// What was found out for words of the command line; holds until the engine looks at anything again.
pub(super) type Answers = HashMap<Vec<String>, Option<Known>>;

/// Targets of which nothing that makes events has changed since the last build.
pub(super) struct Known {
    chosen: Vec<Index>,
    closure: Vec<Index>,
    /// Questions that stand for something that can change without an event.
    hidden: Vec<u32>,
    surroundings: Vec<Surrounding>,
}

impl Watch {
    pub(super) fn answer(&mut self, open: &Open, answers: &mut Answers, mut asked: Asked, host: &mut dyn Host) {
        let is_ready = self.is_ready(open, &asked.question);
        if is_ready {
            asked.look_into();
        }
        let fresh = if is_ready { self.fresh(open, answers, &asked.question) } else { None };
        host.see(&Event::Asked { fresh: fresh.is_some() });
        if let Some(fresh) = fresh {
            asked.answer(&fresh);
        }
    }

    /// Whether a question is of this watch's engine, and nothing happened that this has not taken up.
    fn is_ready(&self, open: &Open, question: &Question) -> bool {
        let engine = &open.engine;
        let is_ours = question.program == engine::program()
            && question.program == self.program
            && question.root == engine.root
            && question.base == engine.base
            && question.profile == self.options.profile;
        let is_still = !self.lookout.is_disturbed() && !self.unfinished && !self.cancel.is_asked();
        is_ours && is_still && !engine.is_overtaken() && engine.recipes_hold()
    }

    fn fresh(&mut self, open: &Open, answers: &mut Answers, question: &Question) -> Option<Fresh> {
        let engine = &open.engine;
        let known = answers.entry(question.words.clone()).or_insert_with_key(|words| self.known(open, words));
        let known = known.as_ref()?;
        if !engine.evidence_holds(known.hidden.iter().copied()) {
            return None;
        }
        if !self.lookout.outputs.lie(engine, &mut self.lookout.eyes, &known.chosen) {
            return None;
        }
        let labels = known.closure.iter().filter(|_| question.labels).map(|i| engine.label(*i));
        let surroundings = known.surroundings.clone();
        Some(Fresh { targets: known.closure.len(), labels: labels.collect(), surroundings })
    }

    /// What these words name, if all of it is watched and known.
    fn known(&self, open: &Open, words: &[String]) -> Option<Known> {
        let engine = &open.engine;
        let words = if words.is_empty() { engine.default_words() } else { words };
        let chosen = engine.select(words, &[]).ok()?;
        let closure = engine.plan().closure(&chosen);
        let reads = || closure.iter().flat_map(|i| engine.plan().reads(*i)).copied();
        let mut is_watched = vec![false; engine.plan().questions()];
        open.questions.iter().for_each(|q| is_watched[*q as usize] = true);
        if !reads().all(|q| is_watched[q as usize]) || !engine.are_known(&closure) {
            return None;
        }
        let hidden = self.lookout.interests.hidden();
        let hidden: std::collections::BTreeSet<u32> = reads().filter(|q| hidden.contains(q)).collect();
        let surroundings = engine.surroundings(reads());
        Some(Known { chosen, closure, hidden: hidden.into_iter().collect(), surroundings })
    }
}
