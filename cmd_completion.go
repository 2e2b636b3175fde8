// What may stand where the operator has pressed Tab? The shells know nothing: their scripts ask `hactl complete` with the
// words so far, and it answers from the commands themselves and, for names, from the daemon. It never waits long and
// never says that something went wrong: no answer is the worst that a completion may give.

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// completionTime is how long names are waited for: somebody looks at the cursor.
const completionTime = 300 * time.Millisecond

// completeFiles is the answer that leaves the word to the shell.
const completeFiles = ":files"

var completionScripts = map[string]string{
	"bash": `# hactl completion bash: source it, or put it into /usr/share/bash-completion/completions/hactl
_hactl() {
  local word rest
  COMPREPLY=()
  while IFS=$'\t' read -r word rest; do
    if [[ $word = ` + completeFiles + ` ]]; then
      compopt -o default
      return
    fi
    COMPREPLY+=("$word")
  done < <(hactl complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _hactl hactl
`,
	"zsh": `#compdef hactl
# hactl completion zsh: source it after compinit, or put it as _hactl into a folder of fpath
_hactl() {
  local word meaning
  local -a found
  while IFS=$'\t' read -r word meaning; do
    if [[ $word = ` + completeFiles + ` ]]; then
      _files
      return
    fi
    found+=("${word//:/\\:}:$meaning")
  done < <(hactl complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
  _describe hactl found
}
if [[ $funcstack[1] = _hactl ]]; then _hactl "$@"; else compdef _hactl hactl; fi
`,
	"fish": `# hactl completion fish: source it, or put it into /usr/share/fish/vendor_completions.d/hactl.fish
function __hactl_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found (hactl complete -- $words[2..] 2>/dev/null)
  if test "$found[1]" = ` + completeFiles + `
    __fish_complete_path (commandline -ct)
  else
    printf '%s\n' $found
  end
end
complete -c hactl -f -a '(__hactl_complete)'
`,
}

func completionCommand() *cli.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cli.Command{
		Name:      "completion",
		Category:  categorySetUp,
		Usage:     "what a shell needs to complete commands and names",
		ArgsUsage: strings.Join(shells, "|"),
		Description: `Prints the script for the shell. The package has it in place already; without it:

  source <(hactl completion bash)         in ~/.bashrc
  source <(hactl completion zsh)          in ~/.zshrc, after compinit
  hactl completion fish | source          in ~/.config/fish/config.fish`,
		Action: func(c *cli.Context) error {
			script, ok := completionScripts[c.Args().First()]
			if !ok {
				return noSuch("shell", c.Args().First(), shells)
			}
			_, err := io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

// completeCommand is for the scripts. It prints what may stand in the place of the last of the words, one on a line, with
// its meaning after a tab.
func completeCommand() *cli.Command {
	return &cli.Command{
		Name:      "complete",
		Hidden:    true,
		Usage:     "what may stand in the place of the last word",
		ArgsUsage: "[WORD]...",
		Action: func(c *cli.Context) error {
			for _, w := range complete(c, c.Args().Slice()) {
				fmt.Fprintln(c.App.Writer, strings.TrimSuffix(w.text+"\t"+w.meaning, "\t"))
			}
			return nil
		},
	}
}

// completion is one word that may stand there.
type completion struct{ text, meaning string }

// complete finds the words that may stand in the place of the last one and begin like it.
func complete(c *cli.Context, words []string) []completion {
	if len(words) == 0 {
		words = []string{""}
	}
	last := len(words) - 1
	typed := words[last]
	place := completionPlace{app: c.App, client: newClient(c), ctx: c.Context}
	for i := 0; i < last; i++ {
		if f := place.take(words[i]); f == nil {
			continue
		} else if i+1 < last {
			i++ // its value
			place.value(f, words[i])
		} else {
			return beginLike(typed, place.flagValues(f))
		}
	}
	switch name, value, has := strings.Cut(typed, "="); {
	case has && strings.HasPrefix(name, "--") && place.flag(name) != nil:
		var out []completion
		for _, w := range beginLike(value, place.flagValues(place.flag(name))) {
			if w.text != completeFiles { // a shell would complete the whole word as a path
				out = append(out, completion{name + "=" + w.text, w.meaning})
			}
		}
		return out
	case strings.HasPrefix(typed, "-"):
		return beginLike(typed, place.flags())
	}
	return beginLike(typed, place.words())
}

// beginLike keeps what begins as typed. That files may stand there is for the shell to sort out.
func beginLike(typed string, words []completion) []completion {
	return slices.DeleteFunc(words, func(w completion) bool {
		return w.text != completeFiles && !strings.HasPrefix(w.text, typed)
	})
}

// completionPlace is what is known of the line before the word.
type completionPlace struct {
	ctx    context.Context
	app    *cli.App
	client *client
	path   []*cli.Command
	args   []string // of the command
	status *Status
}

// take reads one whole word; the flag, if that still needs its value.
func (p *completionPlace) take(word string) cli.Flag {
	if len(word) > 1 && word[0] == '-' {
		if f := p.flag(word); f != nil && takesValue(f) && !strings.Contains(word, "=") {
			return f
		}
		if name, value, has := strings.Cut(word, "="); has {
			p.value(p.flag(name), value)
		}
		return nil
	}
	if sub := subcommands(p.app, p.path); len(sub) > 0 && len(p.args) == 0 {
		if c := lookUp(sub, word); c != nil {
			p.path = append(p.path, c)
			return nil
		}
	}
	p.args = append(p.args, word)
	return nil
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func (p *completionPlace) flag(word string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	f, _ := findFlag(p.app, p.path, name)
	return f
}

// value heeds the flag that says where the daemon is.
func (p *completionPlace) value(f cli.Flag, value string) {
	if f != nil && f.Names()[0] == "socket" && value != "" {
		p.client = clientAt(value)
	}
}

func (p *completionPlace) flags() []completion {
	var out []completion
	all := p.app.Flags
	if len(p.path) > 0 {
		all = append(slices.Clone(p.path[len(p.path)-1].Flags), all...)
	}
	for _, f := range all {
		if d, ok := f.(cli.DocGenerationFlag); ok {
			out = append(out, completion{dashed(f.Names()[0]), strings.ReplaceAll(d.GetUsage(), "`", "")})
		}
	}
	return out
}

// flagValues go by the capital word in the flag's usage, which is what help shows.
func (p *completionPlace) flagValues(f cli.Flag) []completion {
	_, rest, _ := strings.Cut(f.(cli.DocGenerationFlag).GetUsage(), "`")
	word, after, _ := strings.Cut(rest, "`")
	if word == "WHEN" {
		var out []completion
		for _, w := range strings.Split(strings.TrimPrefix(after, ":"), ",") {
			out = append(out, completion{text: strings.TrimSpace(w)})
		}
		return out
	}
	return p.named(word)
}

// words are what the command may be given next: ArgsUsage says it, as it does to countWords.
func (p *completionPlace) words() []completion {
	if sub := subcommands(p.app, p.path); len(sub) > 0 {
		if len(p.args) > 0 {
			return nil // there is no such command
		}
		return commandWords(sub)
	}
	wanted := strings.Fields(p.path[len(p.path)-1].ArgsUsage)
	if len(wanted) == 0 {
		return nil
	}
	at := len(p.args)
	if at >= len(wanted) {
		at = len(wanted) - 1
		if !strings.HasSuffix(wanted[at], "...") {
			return nil
		}
	}
	var out []completion
	for _, w := range strings.Split(strings.Trim(wanted[at], "[]."), "|") {
		out = append(out, p.named(w)...)
	}
	return out
}

func commandWords(commands []*cli.Command) []completion {
	var out []completion
	for _, c := range commands {
		if !c.Hidden {
			out = append(out, completion{c.Name, c.Usage})
		}
	}
	return out
}

// named is what a capital word stands for; a small one stands for itself.
func (p *completionPlace) named(word string) []completion {
	switch word {
	case "FILE", "PATH":
		return []completion{{text: completeFiles}}
	case "GROUP":
		return p.groups()
	case "NODE", "NAME":
		return p.nodes()
	case "RESOURCE":
		return p.resources()
	case "LINK":
		return p.links()
	case "GENERATION", "A", "B":
		return p.generations()
	case "STEP":
		return p.steps()
	case "COMMAND":
		return p.commands()
	}
	if word == strings.ToLower(word) && word != "" {
		return []completion{{text: word}}
	}
	return nil
}

// commands go down the tree by the words before, for help.
func (p *completionPlace) commands() []completion {
	var path []*cli.Command
	for _, w := range p.args {
		c := lookUp(subcommands(p.app, path), w)
		if c == nil {
			return nil
		}
		path = append(path, c)
	}
	return commandWords(subcommands(p.app, path))
}

// known asks the daemon once; where it does not answer soon there are no names.
func (p *completionPlace) known() *Status {
	if p.status == nil {
		p.status = &Status{}
		ctx, cancel := context.WithTimeout(p.ctx, completionTime)
		defer cancel()
		if s, err := p.client.status(ctx); err == nil {
			p.status = s
		}
	}
	return p.status
}

func (p *completionPlace) groups() []completion {
	var out []completion
	for _, g := range p.known().Groups {
		meaning := g.State
		if g.Owner != "" {
			meaning += " on " + g.Owner
		}
		out = append(out, completion{g.Name, meaning})
	}
	return out
}

// nodes leave the witnesses out where the command names a group, since they run none.
func (p *completionPlace) nodes() []completion {
	var out []completion
	for _, n := range p.known().Nodes {
		if n.Role != "witness" || p.group() == nil {
			out = append(out, completion{n.Name, n.State})
		}
	}
	return out
}

func (p *completionPlace) resources() []completion {
	g := p.group()
	if g == nil {
		return nil
	}
	var out []completion
	for _, r := range g.Resources {
		out = append(out, completion{r.Name, r.Type})
	}
	return out
}

func (p *completionPlace) links() []completion {
	var out []completion
	for _, l := range p.known().Links {
		out = append(out, completion{l.Name, l.Interface})
	}
	return out
}

func (p *completionPlace) generations() []completion {
	ctx, cancel := context.WithTimeout(p.ctx, completionTime)
	defer cancel()
	var all []generation
	if p.client.get(ctx, "/v1/generations", &all) != nil {
		return nil
	}
	var out []completion
	for _, g := range slices.Backward(all) {
		out = append(out, completion{strconv.FormatUint(g.Generation, 10), g.By})
	}
	return out
}

// group is the last one that the words before name.
func (p *completionPlace) group() *GroupStatus {
	for _, w := range slices.Backward(p.args) {
		for i := range p.known().Groups {
			if g := &p.known().Groups[i]; g.Name == w {
				return g
			}
		}
	}
	return nil
}

// steps complete the step that is being written, which begins after the last comma.
func (p *completionPlace) steps() []completion {
	step := strings.Split(strings.Join(p.args, " "), ",")
	before := strings.Fields(step[len(step)-1])
	var out []completion
	for _, f := range stepForms() {
		form := strings.Fields(f.form)
		if len(form) <= len(before) || !stepBegins(form, before) {
			continue
		}
		for _, w := range p.named(strings.Trim(form[len(before)], "[].")) {
			if !slices.ContainsFunc(out, func(o completion) bool { return o.text == w.text }) {
				if len(before) == 0 {
					w.meaning = f.what
				}
				out = append(out, w)
			}
		}
	}
	return out
}

// stepBegins tells whether these words fit the form, whose capital words are names.
func stepBegins(form, words []string) bool {
	for i, w := range words {
		if form[i] == strings.ToLower(form[i]) && form[i] != w {
			return false
		}
	}
	return true
}
