//! Stages: which there are, who needs whom, what their bases are.

use std::collections::BTreeMap;

use onggi_oci::{Platform, Reference};

use super::stage::{Command, State, empty_config};
use super::{Context, Epoch, NoCache, Plan, Planner, SCRATCH, arguments, checks};
use crate::dockerfile::instruction::{self, Document, Instruction, Kind, Stage, mount_from};
use crate::dockerfile::lint::Linter;
use crate::dockerfile::outline::{Capture, Outline};
use crate::dockerfile::problem::{Diagnostic, Lines, Problem};
use crate::dockerfile::syntax;
use crate::dockerfile::words::{Lexer, Variables};
use crate::graph::{ImagePlace, ImageSource, Op, Target};
use crate::images::ResolvedImage;

/// Names that people mean, for "did you mean".
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// The most bytes that stages take over from each other, all together.
const MAX_INHERITED: usize = 256 << 20;
/// How many images are asked for at once: a registry takes no more of one client either.
const MAX_QUESTIONS: usize = 8;

type Result<T> = std::result::Result<T, Diagnostic>;

impl Planner<'_> {
    pub(super) fn plan(mut self, document: Document) -> Result<Plan> {
        let last = document.stages.last().and_then(|stage| stage.name.clone()).unwrap_or_default();
        let name = self.options.target.clone().filter(|name| !name.is_empty()).unwrap_or(last);
        let predefined = self.platforms.arguments(&name, &self.build_args);
        checks::default_bases(&mut self, &predefined, &document.arguments, &document.stages);
        let mut capture = Capture::default();
        self.globals =
            arguments::global(predefined, self.lexer, &document.arguments, &self.build_args, &mut capture)?;
        let epoch = self.epoch(&document.stages)?;

        for (index, stage) in document.stages.into_iter().enumerate() {
            self.add_stage(index, stage, &capture)?;
        }
        let target = self.target()?;
        self.link()?;
        let needed = self.resolve(target)?;
        for (index, needed) in needed.into_iter().enumerate() {
            if needed || self.options.all_stages && !self.states[index].image_only {
                self.stage(index)?;
            }
        }
        self.finish(target, epoch)
    }

    /// Registers a stage: its base and platform with arguments in place.
    fn add_stage(&mut self, index: usize, mut stage: Stage, capture: &Capture) -> Result<()> {
        self.linter.enter(&stage.comments);
        let at = |problem: Problem, word: &str| Diagnostic::at(problem, stage.lines).with_word(word);
        let expanded = match self.lexer.expand(&stage.base, &self.globals) {
            Ok(expanded) => expanded,
            Err(error) => {
                self.check_from(&error.missing, capture, stage.lines);
                return Err(at(error.into(), &stage.base));
            }
        };
        self.check_from(&expanded.missing, capture, stage.lines);
        if expanded.text.is_empty() {
            return Err(at(Problem::BlankBase { name: stage.base.clone() }, &stage.base));
        }
        let mut used = expanded.used;
        let mut platform = None;
        if let Some(written) = stage.platform.clone() {
            let expanded = self.lexer.expand(&written, &self.globals).map_err(|source| {
                at(Problem::ExpandPlatform { text: String::new(), source: Box::new(source) }, &written)
            })?;
            self.check_from(&expanded.missing, capture, stage.lines);
            self.check_platform(&stage, &written, &expanded);
            let suggest = |problem: Diagnostic| match expanded.missing.first() {
                Some(name) => problem.suggest(name, self.globals.names(), false),
                None => problem,
            };
            if expanded.text.is_empty() {
                return Err(suggest(at(Problem::EmptyPlatform { expression: written.clone() }, &written)));
            }
            let parsed: Platform = expanded.text.parse().map_err(|error: onggi_oci::Error| {
                let reason = error.to_string();
                suggest(at(Problem::Platform { expression: written.clone(), reason }, &written))
            })?;
            used.extend(expanded.used);
            platform = Some(parsed);
        }
        stage.base = expanded.text;
        self.linter.leave();

        let context = stage.name.as_deref().and_then(|name| self.named_context(name, platform.as_ref()));
        let name = stage.name.clone();
        self.take_over(capture.size(), stage.lines)?;
        let mut state = State::new(stage, capture.clone());
        state.platform = platform;
        state.no_cache = match &self.options.no_cache {
            NoCache::Never => false,
            NoCache::Always => true,
            NoCache::Stages(names) => name
                .as_deref()
                .is_some_and(|name| names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))),
        };
        if context.is_some() {
            state.context = context;
            state.stage.instructions.clear();
        } else {
            if name.is_none() {
                state.label = format!("stage-{index}");
            }
            state.base = self.by_name.get(&state.stage.base).copied();
            if let Some(base) = state.base {
                // A stage sees what its base declared.
                let capture = &self.states[base].capture;
                let size = capture.size();
                state.capture = capture.clone();
                self.take_over(size, state.stage.lines)?;
            }
            for name in &used {
                state.capture.mark_used(name);
            }
            let first = usize::from(state.stage.base != SCRATCH && state.base.is_none());
            let counted = |instruction: &&Instruction| {
                matches!(instruction.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
            };
            state.steps.1 = first + state.stage.instructions.iter().filter(counted).count();
        }
        if let Some(name) = name {
            self.by_name.insert(name, self.states.len());
        }
        self.states.push(state);
        Ok(())
    }

    /// Counts what a stage takes over.
    fn take_over(&mut self, size: usize, lines: Lines) -> Result<()> {
        self.inherited += size;
        if self.inherited > MAX_INHERITED {
            return Err(Diagnostic::at(Problem::Inherited { limit: MAX_INHERITED }, lines));
        }
        Ok(())
    }

    /// The named context of this name, for a platform of its own or for all.
    pub(super) fn named_context(&self, name: &str, platform: Option<&Platform>) -> Option<Context> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = match name.parse::<Reference>() {
            Ok(reference) => {
                let familiar = reference.familiar();
                familiar.strip_suffix(":latest").map_or(familiar.clone(), str::to_owned)
            }
            Err(_) => name.to_lowercase(),
        };
        let platform = platform.unwrap_or(&self.platforms.target);
        let contexts = &self.options.contexts;
        contexts.get(&format!("{name}::{platform}")).or_else(|| contexts.get(&name)).cloned()
    }

    fn target(&self) -> Result<usize> {
        let Some(name) = self.options.target.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(self.states.len() - 1);
        };
        self.by_name.get(&name.to_lowercase()).copied().ok_or_else(|| {
            Diagnostic::whole(Problem::Target { name: name.to_owned() }).suggest(name, self.labels(), false)
        })
    }

    fn labels(&self) -> impl Iterator<Item = &str> {
        self.states.iter().map(|state| state.label.as_str()).filter(|label| !label.is_empty())
    }

    /// Finds out which stages read which.
    fn link(&mut self) -> Result<()> {
        for index in 0..self.states.len() {
            let instructions = std::mem::take(&mut self.states[index].stage.instructions);
            for instruction in instructions {
                let command = self.command(index, instruction, false)?;
                self.states[index].commands.push(command);
            }
        }
        self.refuse_circles()?;
        if let [only] = self.states.as_mut_slice() {
            only.label.clear();
        }
        Ok(())
    }

    /// An instruction with the stages that it reads; images among them become states.
    fn command(&mut self, index: usize, instruction: Instruction, triggered: bool) -> Result<Command> {
        let lines = instruction.lines;
        let names: Vec<Option<String>> = match &instruction.kind {
            Kind::Copy(copy) => {
                if let Some(from) = &copy.from {
                    let at = |problem| Diagnostic::at(problem, lines).with_word(from.as_str());
                    let plain =
                        self.lexer.expand(from, &Variables::default()).map_err(|error| at(error.into()))?;
                    if plain.text != *from {
                        return Err(at(Problem::FromExpansion));
                    }
                }
                copy.from.iter().cloned().map(Some).collect()
            }
            Kind::Run(run) => run.mounts.iter().map(|text| mount_from(text)).collect(),
            _ => Vec::new(),
        };
        let numbered = matches!(instruction.kind, Kind::Copy(_));
        let mut sources = Vec::new();
        for name in names {
            let Some(name) = name else {
                sources.push(None);
                continue;
            };
            let source = match name.parse::<i64>() {
                Ok(number) if numbered => {
                    let found = usize::try_from(number).ok().filter(|number| *number < self.states.len());
                    found.ok_or_else(|| {
                        Diagnostic::at(Problem::StageIndex { index: number }, lines).with_word(name.as_str())
                    })?
                }
                _ => {
                    let known = self.by_name.get(&name.to_lowercase()).or(self.images_by_name.get(&name));
                    known.copied().unwrap_or_else(|| {
                        let new = self.states.len();
                        self.states.push(State::image(&name, lines));
                        self.images_by_name.insert(name, new);
                        new
                    })
                }
            };
            self.states[index].needs.push((source, lines));
            sources.push(Some(source));
        }
        Ok(Command { instruction, sources, triggered })
    }

    /// Refuses stages that read each other.
    fn refuse_circles(&self) -> Result<()> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Closed,
        }
        let mut marks = vec![Mark::New; self.states.len()];
        for start in 0..self.states.len() {
            if marks[start] != Mark::New {
                continue;
            }
            // (stage, next of its needs, the line that led here); no recursion, for long chains.
            let mut path: Vec<(usize, usize, Option<Lines>)> = vec![(start, 0, None)];
            marks[start] = Mark::Open;
            while let Some((stage, next, _)) = path.last_mut() {
                let Some(&(need, lines)) = self.states[*stage].needs.get(*next) else {
                    marks[*stage] = Mark::Closed;
                    path.pop();
                    continue;
                };
                *next += 1;
                match marks[need] {
                    Mark::Closed => {}
                    Mark::New => {
                        marks[need] = Mark::Open;
                        path.push((need, 0, Some(lines)));
                    }
                    Mark::Open => {
                        let stage = self.states[start].label.clone();
                        let mut places: Vec<Lines> = path.iter().filter_map(|(_, _, lines)| *lines).collect();
                        places.push(lines);
                        return Err(Diagnostic {
                            lines: places,
                            ..Diagnostic::whole(Problem::Circle { stage })
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// What the target needs, itself included.
    fn needed(&self, target: usize) -> Vec<bool> {
        let mut needed = vec![false; self.states.len()];
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut needed[index], true) {
                continue;
            }
            let state = &self.states[index];
            open.extend(state.base);
            open.extend(state.needs.iter().map(|(need, _)| *need));
        }
        needed
    }

    /// Gets base images and takes their triggers, which may need further stages.
    fn resolve(&mut self, target: usize) -> Result<Vec<bool>> {
        loop {
            let needed = self.needed(target);
            let wanted: Vec<usize> = (0..self.states.len())
                .filter(|&index| {
                    let state = &self.states[index];
                    state.base.is_none() && !state.resolved && (needed[index] || self.options.all_stages)
                })
                .collect();
            self.bases(&wanted)?;
            let mut more = false;
            for index in 0..self.states.len() {
                if needed.get(index).copied().unwrap_or_default() && !self.states[index].triggers_taken {
                    more |= self.take_triggers(index)?;
                }
            }
            if !more {
                return Ok(self.needed(target));
            }
        }
    }

    /// Adds what the base wants done in images built from it. Says whether that reads other stages.
    fn take_triggers(&mut self, index: usize) -> Result<bool> {
        self.states[index].triggers_taken = true;
        let triggers: Vec<String> = match self.states[index].base {
            None => std::mem::take(&mut self.states[index].config.config.on_build),
            Some(base) => self.states[base]
                .commands
                .iter()
                .filter_map(|command| match &command.instruction.kind {
                    Kind::Onbuild(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
        };
        let lines = self.states[index].stage.lines;
        let mut commands = Vec::new();
        let mut more = false;
        for trigger in &triggers {
            let at = |problem: Diagnostic| Diagnostic { lines: vec![lines], word: None, ..problem };
            let mut file = syntax::parse(trigger).map_err(at)?;
            let (Some(mut node), true) = (file.nodes.pop(), file.nodes.is_empty()) else {
                return Err(Diagnostic::at(Problem::OnbuildSingle, lines));
            };
            node.lines = lines;
            let instruction = instruction::instruction(&node, &mut Linter::default()).map_err(at)?;
            let command = self.command(index, instruction, true)?;
            more |= !command.sources.is_empty();
            commands.push(command);
        }
        let state = &mut self.states[index];
        state.steps.1 += commands.len();
        commands.append(&mut state.commands);
        state.commands = commands;
        Ok(more)
    }

    /// Gets the base images of these stages, all at once.
    fn bases(&mut self, wanted: &[usize]) -> Result<()> {
        let mut asked: BTreeMap<(ImageName, String), Vec<usize>> = BTreeMap::new();
        let mut questions: Vec<(ImageSource, Platform)> = Vec::new();
        let mut keys = Vec::new();
        for &index in wanted {
            self.states[index].resolved = true;
            let state = &self.states[index];
            if state.stage.base == SCRATCH && state.context.is_none() {
                let platform = self.platforms.target.clone();
                let state = &mut self.states[index];
                state.config = empty_config(&platform);
                state.platform = Some(platform);
                state.done = state.image_only;
                continue;
            }
            let platform = state.platform.clone().unwrap_or_else(|| self.platforms.target.clone());
            let Some(source) = self.base_source(index, &platform)? else { continue };
            let key = (ImageName::of(&source), platform.to_string());
            if !asked.contains_key(&key) {
                questions.push((source, platform));
                keys.push(key.clone());
            }
            asked.entry(key).or_default().push(index);
        }

        let images = self.images;
        let mut answers: Vec<crate::Result<ResolvedImage>> = Vec::new();
        for some in questions.chunks(MAX_QUESTIONS) {
            if let [(source, platform)] = some {
                answers.push(images.resolve(source, platform));
                continue;
            }
            answers.extend(std::thread::scope(|scope| {
                let threads: Vec<_> = some
                    .iter()
                    .map(|(source, platform)| scope.spawn(move || images.resolve(source, platform)))
                    .collect();
                let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                threads.into_iter().map(join).collect::<Vec<_>>()
            }));
            // What was not answered is not asked for further.
            if answers.iter().any(std::result::Result::is_err) {
                break;
            }
        }
        for (((source, platform), key), answer) in questions.into_iter().zip(keys).zip(answers) {
            let stages = asked.remove(&key).unwrap_or_default();
            match answer {
                Ok(image) => {
                    for index in stages {
                        self.set_base(index, source.clone(), &platform, image.clone());
                    }
                }
                Err(error) => {
                    let Some(&index) = stages.first() else { continue };
                    let stage = &self.states[index].stage;
                    let problem = Problem::BaseImage {
                        name: stage.base.clone(),
                        reason: error.to_string(),
                        kind: error.kind(),
                    };
                    let options = self.labels().chain(COMMON_IMAGES);
                    return Err(Diagnostic::at(problem, stage.lines).with_word(stage.base.as_str()).suggest(
                        &stage.base,
                        options,
                        false,
                    ));
                }
            }
        }
        Ok(())
    }

    /// The image that a stage is from; none if it is from a named context that is no image.
    fn base_source(&mut self, index: usize, platform: &Platform) -> Result<Option<ImageSource>> {
        let stage = &self.states[index].stage;
        let as_stage = self.states[index].context.clone();
        let whole = as_stage.is_some();
        let reference = match stage.base.parse::<Reference>() {
            Ok(reference) => Some(reference.with_default_tag()),
            Err(_) if whole => None,
            Err(error) => {
                let (name, reason) = (stage.base.clone(), error.to_string());
                return Err(Diagnostic::at(Problem::BaseName { name, reason }, stage.lines)
                    .with_word(stage.base.as_str()));
            }
        };
        let context = as_stage
            .or_else(|| {
                reference.as_ref().and_then(|name| self.named_context(&name.to_string(), Some(platform)))
            })
            .or_else(|| self.named_context(&stage.base, Some(platform)));
        match (context, reference) {
            (Some(Context::Image(source)), _) => Ok(Some(source)),
            (Some(context), _) => {
                let vertex = self.context_vertex(&context, platform);
                let done = whole || self.states[index].image_only;
                let state = &mut self.states[index];
                state.vertex = Some(vertex);
                state.config = empty_config(platform);
                state.platform = Some(platform.clone());
                state.done = done;
                Ok(None)
            }
            (None, Some(reference)) => Ok(Some(ImageSource {
                reference: reference.to_string(),
                place: ImagePlace::Registry,
                manifest: None,
            })),
            // A name that is none was refused above.
            (None, None) => Ok(None),
        }
    }

    /// A stage begins with this image.
    fn set_base(&mut self, index: usize, source: ImageSource, platform: &Platform, image: ResolvedImage) {
        let ResolvedImage { manifest, mut config } = image;
        let lines = self.states[index].stage.lines;
        let name = self.states[index].stage.base.clone();
        let whole = self.states[index].context.is_some();
        self.states[index].base_config = Some(config.clone());
        config.created = None;
        // An image made from nothing has entries of history and no layers.
        let empty = config.rootfs.diff_ids.is_empty() && config.history.iter().all(|entry| entry.empty_layer);
        if !empty {
            let shown = match source.reference.split_once('@') {
                Some(_) => source.reference.clone(),
                None => format!("{}@{manifest}", source.reference),
            };
            let step = self.step_name(index, &format!("FROM {shown}"), platform);
            let op = Op::Image(ImageSource { manifest: Some(manifest), ..source });
            let vertex = self.vertex(index, op, step, lines, platform);
            self.states[index].vertex = Some(vertex);
            if !whole && !config.os.is_empty() {
                self.check_base_platform(&name, platform, &config.platform(), lines);
            }
        }
        let state = &mut self.states[index];
        state.platform =
            Some(if whole && !config.os.is_empty() { config.platform() } else { platform.clone() });
        state.config = config;
        state.done = whole || state.image_only;
    }

    /// Plans what a stage does.
    fn stage(&mut self, index: usize) -> Result<()> {
        if self.states[index].done {
            return Ok(());
        }
        if let Some(base) = self.states[index].base {
            // A base comes before what is from it.
            let size = self.states.get(base).map_or(0, State::size);
            self.take_over(size, self.states[index].stage.lines)?;
            let (before, after) = self.states.split_at_mut(index);
            if let (Some(base), Some(state)) = (before.get(base), after.first_mut()) {
                state.inherit(base);
            }
        }
        let target = self.platforms.target.clone();
        self.states[index].enter(&target);
        self.states[index].done = true;
        for command in std::mem::take(&mut self.states[index].commands) {
            self.linter.enter(&command.instruction.comments);
            self.command_of(index, &command)?;
            self.states[index].commands.push(command);
        }
        self.linter.leave();
        Ok(())
    }

    /// The target, its config complete.
    fn finish(mut self, target: usize, epoch: Option<Epoch>) -> Result<Plan> {
        self.linter.verdict()?;
        let outline = self.outline(target);
        let state = self.states.swap_remove(target);
        let mut config = state.config;
        config.config.labels.extend(self.options.labels.clone());
        let wanted = &self.platforms.target;
        if !self.platforms.implicit {
            let same = wanted.os == config.os && wanted.architecture == config.architecture;
            config.os.clone_from(&wanted.os);
            config.architecture.clone_from(&wanted.architecture);
            if wanted.variant.is_some() || !same {
                config.variant.clone_from(&wanted.variant);
            }
            if wanted.os_version.is_some() || !same {
                config.os_version.clone_from(&wanted.os_version);
            }
        }
        let platform = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant.clone_from(&platform.variant);
        let target = Target { name: state.stage.name, vertex: state.vertex, platform, config };
        Ok(Plan { target, warnings: Vec::new(), outline, epoch, base: state.base_config })
    }

    /// What the target and all that it needs takes, each stage after the one that needs it.
    fn outline(&self, target: usize) -> Outline {
        let mut order = vec![target];
        let mut seen = vec![false; self.states.len()];
        seen[target] = true;
        let mut next = 0;
        while let Some(&index) = order.get(next) {
            let state = &self.states[index];
            for need in state.base.into_iter().chain(state.needs.iter().map(|(need, _)| *need)) {
                if !std::mem::replace(&mut seen[need], true) {
                    order.push(need);
                }
            }
            next += 1;
        }
        let captures = order.iter().map(|&index| &self.states[index].capture);
        Outline::collect(&self.states[target].stage, captures)
    }

    /// The lexer of instructions.
    pub(super) fn lexer(&self) -> Lexer {
        self.lexer
    }
}

/// An image as something to ask for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ImageName(String, Option<String>);

impl ImageName {
    fn of(source: &ImageSource) -> Self {
        let layout = match &source.place {
            ImagePlace::Registry => None,
            ImagePlace::Layout(path) => Some(path.clone()),
        };
        Self(source.reference.clone(), layout)
    }
}
