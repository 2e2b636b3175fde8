// How is text laid out on a terminal? Wrapping, columns and colour for what the commands print. Pure, and ignorant of
// what the text says.

package main

import (
	"strings"
	"time"
	"unicode/utf8"
)

// sheet gathers lines of at most width characters.
type sheet struct {
	b     strings.Builder
	width int
	color bool
}

// style is the parameter of the terminal's SGR sequence.
type style string

const (
	styleNone    style = ""
	styleBold    style = "1"
	styleGood    style = "32"
	styleWarning style = "33"
	styleError   style = "31;1"
)

func overallStyle(s *Status) style {
	switch s.Exit() {
	case 0:
		return styleGood
	case 1:
		return styleWarning
	}
	return styleError
}

func stateStyle(state string) style {
	switch state {
	case "started":
		return styleGood
	case "blocked", "stopped":
		return styleError
	}
	return styleWarning
}

func (p *sheet) paint(s style, text string) string {
	if !p.color || s == styleNone || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

func (p *sheet) line(text string) {
	p.b.WriteString(strings.TrimRight(text, " "))
	p.b.WriteByte('\n')
}

// wrapped writes a text that breaks between words, each line after indent.
func (p *sheet) wrapped(indent, text string) { p.paragraph(styleNone, indent, text) }

// paragraph does the same in a style; its second line and those after it stand two further in.
func (p *sheet) paragraph(s style, indent, text string) {
	for i, line := range wrap(plain(text), p.width-utf8.RuneCountInString(indent)-2) {
		if i > 0 {
			line = "  " + line
		}
		p.line(indent + p.paint(s, line))
	}
}

// cut writes one line and cuts what does not fit.
func (p *sheet) cut(text string) { p.cutStyled(styleNone, text) }

func (p *sheet) cutStyled(s style, text string) {
	text = plain(text)
	if utf8.RuneCountInString(text) > p.width {
		text = string([]rune(text)[:p.width-1]) + "…"
	}
	p.line(p.paint(s, strings.TrimRight(text, " ")))
}

// plain is text that may come from anywhere, made fit for one line: no control characters, valid UTF-8.
func plain(text string) string { return printable(strings.ToValidUTF8(text, "?")) }

// printable replaces control characters: text of services and files must not steer the operator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
}

// wrap breaks text between words into lines of at most width characters; a longer word has a line of its own.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// columns pads each column to its widest cell; a column that is empty in all rows takes no room.
func columns(rows [][]string) []string {
	widths := []int{}
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	lines := make([]string, len(rows))
	for n, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		lines[n] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

func wallTime(unixNano int64) time.Time { return time.Unix(0, unixNano) }
