//! Crash states before they are built: what a choice of effects hashes to, and to which unsynced files a name leads in it.
//!
//! Most choices leave a state that was met before, so they have to cost next to nothing. An inode that effects change is
//! built and hashed once for each selection of those effects, and shared by all states that have it; everything else adds the
//! same to every hash.
//!
//! Invariants:
//! 1. The hash of a choice is [`View::hash`](crate::View::hash) of the world that is built of it.
//! 2. No inode is kept for more than [`SELECTIONS`] selections.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::hash::Folded;
use crate::world::effect::Effect;
use crate::world::hashes::{hash_attributes, hash_file, hash_inode};
use crate::world::inode::{Blob, Body, Inode, ROOT, Slot, Table, edit};
use crate::world::live::{Aux, World};

/// Selections of effects for which one inode is kept, before they are forgotten.
const SELECTIONS: usize = 16_384;

/// The disk with a choice of the waiting effects on it.
pub(crate) struct Sketch {
    base: Arc<World>,
    /// By slot.
    parts: Vec<Part>,
    varying: Vec<Varying>,
    /// For each effect, the inodes that it changes, and the effect's place among those that change each.
    steps: Vec<Vec<(usize, usize)>>,
    /// The effects that are chosen.
    kept: Vec<bool>,
    /// Room for [`Sketch::select`].
    touched: Vec<usize>,
}

/// What an inode is to the states of one point.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// It and all below it is the same in each, and adds this to the hash.
    Fixed(u64),
    /// It, or something below it, is not: the index among [`Sketch::varying`].
    Varying(usize),
}

/// An inode that effects change, an unsynced file, or a directory with one of these somewhere below it.
struct Varying {
    slot: Slot,
    /// The effects that change it, in order.
    effects: Vec<usize>,
    /// Its index among the unsynced files.
    file: Option<usize>,
    selections: HashMap<Box<[u64]>, usize, BuildHasherDefault<Folded>>,
    variants: Vec<Variant>,
    /// The selection of this choice, one bit for each of `effects`.
    selection: Box<[u64]>,
    /// The variant that it leads to.
    current: Option<usize>,
}

/// An inode as one selection of effects leaves it.
struct Variant {
    inode: Arc<Inode>,
    /// What it adds to the hash with all that is fixed below it; of an unsynced file, what its attributes hash to.
    hash: u64,
    /// What varies directly below it.
    below: Vec<usize>,
}

/// An unsynced file to which names lead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// Its index among the unsynced files.
    pub(crate) file: usize,
    attributes: u64,
    names: u64,
}

impl Reached {
    /// What it adds to the hash with this content.
    pub(crate) fn hash(&self, content: &Blob) -> u64 {
        hash_file(self.attributes, content).wrapping_mul(self.names)
    }
}

impl Sketch {
    /// `files` are the unsynced files.
    pub(crate) fn new(base: Arc<World>, files: impl Iterator<Item = Slot>) -> Self {
        let kept = vec![false; base.pending.len()];
        let (parts, varying, steps, touched) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut sketch = Self { base, parts, varying, steps, kept, touched };
        let mut at: Vec<Option<usize>> = vec![None; sketch.base.disk.len()];
        for (index, slot) in files.enumerate() {
            let which = sketch.vary(&mut at, slot);
            sketch.varying[which].file = Some(index);
        }
        for effect in 0..sketch.base.pending.len() {
            let mut steps: Vec<(usize, usize)> = Vec::new();
            let places: Vec<Slot> = sketch.base.pending[effect].places().collect();
            for slot in places {
                let which = sketch.vary(&mut at, slot);
                if steps.iter().all(|&(other, _)| other != which) {
                    steps.push((which, sketch.varying[which].effects.len()));
                    sketch.varying[which].effects.push(effect);
                }
            }
            sketch.steps.push(steps);
        }
        let mut parts = vec![None; at.len()];
        for slot in 0..at.len() {
            sketch.part(&mut parts, &mut at, slot as Slot);
        }
        sketch.parts = parts.into_iter().map(|part| part.unwrap_or(Part::Fixed(0))).collect();
        for varying in &mut sketch.varying {
            varying.selection = vec![0; varying.effects.len().div_ceil(64)].into();
            varying.settle(&sketch.base, &sketch.parts);
        }
        sketch
    }

    fn vary(&mut self, at: &mut [Option<usize>], slot: Slot) -> usize {
        *at[slot as usize].get_or_insert_with(|| {
            self.varying.push(Varying::new(slot));
            self.varying.len() - 1
        })
    }

    /// Tells what varies from what does not, from the bottom of the disk's tree.
    fn part(&mut self, parts: &mut [Option<Part>], at: &mut [Option<usize>], slot: Slot) -> Part {
        if let Some(part) = parts[slot as usize] {
            return part;
        }
        let base = self.base.clone();
        let Some(inode) = &base.disk[slot as usize] else { return Part::Fixed(0) };
        let mut sum = hash_inode(&base.disk, inode);
        let mut varies = at[slot as usize].is_some();
        for &(_, child) in inode.entries() {
            match self.part(parts, at, child) {
                Part::Fixed(hash) => sum = sum.wrapping_add(hash),
                Part::Varying(_) => varies = true,
            }
        }
        let part = if varies { Part::Varying(self.vary(at, slot)) } else { Part::Fixed(sum) };
        parts[slot as usize] = Some(part);
        part
    }

    /// Takes these effects: returns the hash but for the content of unsynced files, and those to which names lead.
    pub(crate) fn choose(&mut self, kept: &[bool]) -> (u64, Vec<Reached>) {
        self.select(kept);
        let mut reached = Vec::new();
        let sum = self.sum(self.parts[ROOT as usize], &mut reached);
        (sum, reached)
    }

    /// Looks only at what is not as in the choice before: one choice mostly differs from the next in few effects.
    fn select(&mut self, kept: &[bool]) {
        let Self { base, parts, varying, steps, kept: before, .. } = self;
        let mut touched = std::mem::take(&mut self.touched);
        for (effect, (before, &kept)) in before.iter_mut().zip(kept).enumerate() {
            if *before != kept {
                *before = kept;
                for &(which, at) in &steps[effect] {
                    varying[which].selection[at / 64] ^= 1 << (at % 64);
                    touched.push(which);
                }
            }
        }
        touched.drain(..).for_each(|which| varying[which].settle(base, parts));
        self.touched = touched;
    }

    fn sum(&self, part: Part, reached: &mut Vec<Reached>) -> u64 {
        let which = match part {
            Part::Fixed(hash) => return hash,
            Part::Varying(which) => which,
        };
        let Some(variant) = self.varying[which].variant() else { return 0 };
        if let Some(file) = self.varying[which].file {
            match reached.iter_mut().find(|reached| reached.file == file) {
                Some(reached) => reached.names += 1,
                None => reached.push(Reached { file, attributes: variant.hash, names: 1 }),
            }
            return 0;
        }
        let below = variant.below.iter().map(|&which| self.sum(Part::Varying(which), reached));
        below.fold(variant.hash, u64::wrapping_add)
    }

    /// Builds what was chosen, with these contents in the unsynced files: the inodes to which names lead from the root.
    pub(crate) fn build(&self, contents: &[(Slot, Arc<Blob>)]) -> (Table, Vec<Aux>) {
        let mut table: Table = vec![None; self.parts.len()];
        let mut aux = vec![Aux::default(); table.len()];
        table[ROOT as usize] = self.inode(ROOT);
        aux[ROOT as usize].nlink = 2;
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            let Some(inode) = table[dir as usize].clone() else { continue };
            for &(_, child) in inode.entries() {
                if table[child as usize].is_none() {
                    table[child as usize] = self.inode(child);
                }
                let is_dir = table[child as usize].as_ref().is_some_and(|inode| inode.is_dir());
                let of = &mut aux[child as usize];
                debug_assert!(!is_dir || of.nlink == 0, "a directory has one name");
                if !is_dir {
                    of.nlink += 1;
                } else if of.nlink == 0 {
                    (of.nlink, of.parent) = (2, dir);
                    aux[dir as usize].nlink += 1;
                    todo.push(child);
                }
            }
        }
        for (slot, content) in contents {
            if let Some(inode) = table[*slot as usize].as_mut()
                && let Body::File(body) = &mut edit(inode).body
            {
                body.content = content.clone();
            }
        }
        (table, aux)
    }

    fn inode(&self, slot: Slot) -> Option<Arc<Inode>> {
        match self.parts[slot as usize] {
            Part::Fixed(_) => self.base.disk[slot as usize].clone(),
            Part::Varying(which) => self.varying[which].variant().map(|variant| variant.inode.clone()),
        }
    }
}

impl Varying {
    fn new(slot: Slot) -> Self {
        Self {
            slot,
            effects: Vec::new(),
            file: None,
            selections: HashMap::default(),
            variants: Vec::new(),
            selection: Box::default(),
            current: None,
        }
    }

    /// The inode as the current selection leaves it; none where the disk has none.
    fn variant(&self) -> Option<&Variant> {
        self.current.map(|current| &self.variants[current])
    }

    /// Finds or makes what the selection leads to.
    fn settle(&mut self, base: &World, parts: &[Part]) {
        if let Some(&known) = self.selections.get(&self.selection) {
            self.current = Some(known);
            return;
        }
        let Some(variant) = self.made(base, parts) else { return };
        if self.variants.len() == SELECTIONS {
            self.variants.clear();
            self.selections.clear();
        }
        self.selections.insert(self.selection.clone(), self.variants.len());
        self.current = Some(self.variants.len());
        self.variants.push(variant);
    }

    fn made(&self, base: &World, parts: &[Part]) -> Option<Variant> {
        let mut inode = base.disk[self.slot as usize].clone()?;
        let chosen = |at: &usize| self.selection[at / 64] >> (at % 64) & 1 == 1;
        let effects = (0..self.effects.len()).filter(chosen).map(|at| &base.pending[self.effects[at]]);
        effects.for_each(|effect: &Arc<Effect>| effect.apply_to(self.slot, edit(&mut inode)));
        if self.file.is_some() {
            return Some(Variant { hash: hash_attributes(&inode), inode, below: Vec::new() });
        }
        let (mut hash, mut below) = (hash_inode(&base.disk, &inode), Vec::new());
        for &(_, child) in inode.entries() {
            match parts[child as usize] {
                Part::Fixed(fixed) => hash = hash.wrapping_add(fixed),
                Part::Varying(which) => below.push(which),
            }
        }
        Some(Variant { inode, hash, below })
    }
}
