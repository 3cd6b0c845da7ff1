package fakeloki

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/go-logfmt/logfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// query is a log query: a selector of streams and stages.
type query struct {
	matchers []*labels.Matcher
	stages   []stage
}

// stage reports whether it keeps an entry. It may change the entry, and add to parsed.
type stage func(e *Entry, parsed map[string]string) bool

// value returns the value of a name in a stage.
func value(e *Entry, parsed map[string]string, name string) string {
	for _, set := range []map[string]string{parsed, e.Metadata, e.Labels} {
		if v, ok := set[name]; ok {
			return v
		}
	}
	return ""
}

func (q *query) selects(stream map[string]string) bool {
	for _, m := range q.matchers {
		if !m.Matches(stream[m.Name]) {
			return false
		}
	}
	return true
}

// apply runs the stages on an entry, and returns the changed entry.
func (q *query) apply(e Entry) (Entry, bool) {
	parsed := map[string]string{}
	for _, s := range q.stages {
		if !s(&e, parsed) {
			return e, false
		}
	}
	return e, true
}

// parseQuery parses the part of LogQL that this package supports, and rejects the rest.
func parseQuery(text string) (*query, error) {
	p := &scanner{text: text}
	end := p.selectorEnd()
	if end < 0 {
		return nil, p.errorf("no selector of streams, which is all that is known here")
	}
	matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(text[:end])
	if err != nil {
		return nil, p.errorf("%v", err)
	}
	useful := false
	for _, m := range matchers {
		useful = useful || (m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp) && !m.Matches("")
	}
	if !useful {
		return nil, fmt.Errorf(`parse error : queries require at least one regexp or equality matcher that does not have an empty-compatible value. For instance, app=~".*" does not meet this requirement, but app=~".+" will`)
	}
	q := &query{matchers: matchers}
	for p.at = end; ; {
		p.space()
		if p.at == len(text) {
			return q, nil
		}
		s, err := p.stage()
		if err != nil {
			return nil, err
		}
		q.stages = append(q.stages, s)
	}
}

// scanner reads stages.
type scanner struct {
	text string
	at   int
}

func (p *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("parse error at line 1, col %d: %s", p.at+1, fmt.Sprintf(format, args...))
}

func (p *scanner) space() {
	p.at += len(p.text[p.at:]) - len(strings.TrimLeft(p.text[p.at:], " \t\n"))
}

// accept skips a token if it comes next.
func (p *scanner) accept(token string) bool {
	p.space()
	ok := strings.HasPrefix(p.text[p.at:], token)
	if ok {
		p.at += len(token)
	}
	return ok
}

// word reads a name; it is empty if none comes next.
func (p *scanner) word() string {
	p.space()
	from := p.at
	for p.at < len(p.text) && (p.text[p.at] == '_' || 'a' <= p.text[p.at]|0x20 && p.text[p.at]|0x20 <= 'z' || p.at > from && '0' <= p.text[p.at] && p.text[p.at] <= '9') {
		p.at++
	}
	return p.text[from:p.at]
}

func (p *scanner) string() (string, error) {
	p.space()
	quoted, err := strconv.QuotedPrefix(p.text[p.at:])
	if err != nil || quoted[0] == '\'' {
		return "", p.errorf("syntax error: unexpected %q, expecting STRING", p.text[p.at:])
	}
	p.at += len(quoted)
	return strconv.Unquote(quoted)
}

// selectorEnd returns the end of the selector at the beginning of the text, or -1.
func (p *scanner) selectorEnd() int {
	if !p.accept("{") {
		return -1
	}
	for p.at < len(p.text) {
		switch c := p.text[p.at]; c {
		case '}':
			return p.at + 1
		case '"', '`':
			if _, err := p.string(); err != nil {
				return -1
			}
		default:
			p.at++
		}
	}
	return -1
}

func (p *scanner) stage() (stage, error) {
	for token, filter := range map[string]func(string) (func(string) bool, error){
		"|=": contains(true), "!=": contains(false), "|~": matches(true), "!~": matches(false),
	} {
		if p.accept(token) {
			return p.lineFilter(filter)
		}
	}
	if !p.accept("|") {
		return nil, p.errorf("syntax error: unexpected %q", p.text[p.at:])
	}
	before := p.at
	switch p.word() {
	case "logfmt":
		return p.parse(parseLogfmt)
	case "json":
		return p.parse(parseJSON)
	case "line_format":
		return p.lineFormat()
	case "keep":
		return p.keep()
	}
	p.at = before
	return p.labelFilters()
}

func contains(want bool) func(string) (func(string) bool, error) {
	return func(text string) (func(string) bool, error) {
		return func(line string) bool { return strings.Contains(line, text) == want }, nil
	}
}

func matches(want bool) func(string) (func(string) bool, error) {
	return func(text string) (func(string) bool, error) {
		re, err := regexp.Compile(text)
		if err != nil {
			return nil, err
		}
		return func(line string) bool { return re.MatchString(line) == want }, nil
	}
}

func (p *scanner) lineFilter(make func(string) (func(string) bool, error)) (stage, error) {
	text, err := p.string()
	if err != nil {
		return nil, err
	}
	keeps, err := make(text)
	if err != nil {
		return nil, p.errorf("%v", err)
	}
	return func(e *Entry, _ map[string]string) bool { return keeps(e.Line) }, nil
}

func (p *scanner) lineFormat() (stage, error) {
	text, err := p.string()
	if err != nil {
		return nil, err
	}
	format, err := template.New("line").Option("missingkey=zero").Parse(text)
	if err != nil {
		return nil, p.errorf("%v", err)
	}
	return func(e *Entry, parsed map[string]string) bool {
		all := maps.Clone(e.Labels)
		maps.Copy(all, e.Metadata)
		maps.Copy(all, parsed)
		var b strings.Builder
		if format.Execute(&b, all) == nil { // else the line is unchanged
			e.Line = b.String()
		}
		return true
	}, nil
}

// keep reads the names of the labels and metadata to keep.
func (p *scanner) keep() (stage, error) {
	kept := map[string]bool{}
	for {
		name := p.word()
		if name == "" {
			return nil, p.errorf("syntax error: unexpected %q, expecting IDENTIFIER", p.text[p.at:])
		}
		kept[name] = true
		if !p.accept(",") {
			break
		}
	}
	only := func(set map[string]string) map[string]string {
		set = maps.Clone(set)
		maps.DeleteFunc(set, func(name, _ string) bool { return !kept[name] })
		return set
	}
	return func(e *Entry, _ map[string]string) bool {
		e.Labels, e.Metadata = only(e.Labels), only(e.Metadata)
		return true
	}, nil
}

// labelFilters reads name="value", of which several may be joined by "or", or by "and".
func (p *scanner) labelFilters() (stage, error) {
	var any [][]*labels.Matcher
	for all := []*labels.Matcher(nil); ; {
		m, err := p.labelFilter()
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		before := p.at
		switch p.word() {
		case "and":
			continue
		case "or":
			any, all = append(any, all), nil
			continue
		}
		p.at = before
		any = append(any, all)
		return func(e *Entry, parsed map[string]string) bool {
			return slices.ContainsFunc(any, func(all []*labels.Matcher) bool {
				return !slices.ContainsFunc(all, func(m *labels.Matcher) bool { return !m.Matches(value(e, parsed, m.Name)) })
			})
		}, nil
	}
}

func (p *scanner) labelFilter() (*labels.Matcher, error) {
	name := p.word()
	if name == "" {
		return nil, p.errorf("syntax error: unexpected %q, expecting IDENTIFIER", p.text[p.at:])
	}
	for _, kind := range []labels.MatchType{labels.MatchRegexp, labels.MatchNotRegexp, labels.MatchNotEqual, labels.MatchEqual} {
		if !p.accept(kind.String()) {
			continue
		}
		value, err := p.string()
		if err != nil {
			return nil, err
		}
		m, err := labels.NewMatcher(kind, name, value)
		if err != nil {
			return nil, p.errorf("%v", err)
		}
		if kind != labels.MatchEqual && kind != labels.MatchNotEqual && losesEmpty(value) {
			return nil, p.errorf("%s%s%q: Loki forgets the empty alternative, so do not send this", name, kind, value)
		}
		return m, nil
	}
	return nil, p.errorf("syntax error: unexpected %q, expecting an operator", p.text[p.at:])
}

// losesEmpty reports whether Loki simplifies a pattern to one that does not match the empty text.
func losesEmpty(pattern string) bool {
	re, err := syntax.Parse(pattern, syntax.Perl)
	return err == nil && (re.Op == syntax.OpEmptyMatch || re.Op == syntax.OpAlternate &&
		slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return sub.Op == syntax.OpEmptyMatch }))
}

// parse reads name="key", … after logfmt or json.
func (p *scanner) parse(values func(line string) func(key string) (string, bool)) (stage, error) {
	keys := map[string]string{}
	for {
		name := p.word()
		if name == "" || !p.accept("=") {
			return nil, p.errorf("a parser without name=\"key\" is not known here")
		}
		key, err := p.string()
		if err != nil {
			return nil, err
		}
		keys[name] = key
		if !p.accept(",") {
			break
		}
	}
	return func(e *Entry, parsed map[string]string) bool {
		value := values(e.Line)
		for name, key := range keys {
			parsed[name], _ = value(key)
		}
		return true
	}, nil
}

func parseLogfmt(line string) func(string) (string, bool) {
	found := map[string]string{}
	d := logfmt.NewDecoder(strings.NewReader(line))
	for d.ScanRecord() {
		for d.ScanKeyval() {
			found[string(d.Key())] = string(d.Value())
		}
	}
	return func(key string) (string, bool) { v, ok := found[key]; return v, ok }
}

func parseJSON(line string) func(string) (string, bool) {
	var root any
	_ = json.Unmarshal([]byte(line), &root) // a line that is no JSON has none of the keys
	return func(path string) (string, bool) {
		at := root
		for name := range strings.SplitSeq(path, ".") {
			object, _ := at.(map[string]any)
			at = object[name]
		}
		switch v := at.(type) {
		case nil:
			return "", false
		case string:
			return v, true
		default:
			b, err := json.Marshal(v)
			return string(b), err == nil
		}
	}
}
