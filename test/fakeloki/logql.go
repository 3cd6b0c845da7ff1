package fakeloki

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-logfmt/logfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// query is a log query: a selector of streams and stages.
type query struct {
	matchers []*labels.Matcher
	stages   []stage
}

// stage reports whether it keeps a line. It may add to the labels, which are those of the stream,
// the structured metadata and what earlier stages have parsed.
type stage func(line string, labels map[string]string) bool

func (q *query) selects(stream map[string]string) bool {
	for _, m := range q.matchers {
		if !m.Matches(stream[m.Name]) {
			return false
		}
	}
	return true
}

func (q *query) keeps(e *Entry) bool {
	all := maps.Clone(e.Labels)
	maps.Copy(all, e.Metadata)
	for _, s := range q.stages {
		if !s(e.Line, all) {
			return false
		}
	}
	return true
}

// parseQuery reads what this package knows of LogQL, and refuses the rest.
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

// selectorEnd returns where the selector ends that the text begins with, or -1.
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
	return func(line string, _ map[string]string) bool { return keeps(line) }, nil
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
		return func(_ string, set map[string]string) bool {
			for _, all := range any {
				q := query{matchers: all}
				if q.selects(set) {
					return true
				}
			}
			return false
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
		return m, nil
	}
	return nil, p.errorf("syntax error: unexpected %q, expecting an operator", p.text[p.at:])
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
	return func(line string, set map[string]string) bool {
		value := values(line)
		for name, key := range keys {
			set[name], _ = value(key)
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
