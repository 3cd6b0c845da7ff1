package input

import (
	"bytes"
	"encoding/json"
	"regexp"

	"sigs.k8s.io/yaml"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

// yamlDocument collects the lines of a YAML document. Of a list or a sequence it holds one
// item at a time, because all of them may not fit into memory.
type yamlDocument struct {
	on    bool
	begin int             // line
	rest  []byte          // the lines outside of items
	keys  map[string]bool // at its first column

	items    bool // the next lines belong to items
	sequence bool // the document has only items
	indent   int  // of the items' dashes; -1: not known yet
	item     []byte
	itemLine int
	list     *list // nil before its items
}

func (y *yamlDocument) active() bool { return y.on }

var (
	yamlKey = lazyregexp.New(`^["']?([A-Za-z_][\w./-]*)["']?:( |$)`)
	// First keys of objects with Events.
	yamlStart = lazyregexp.New(`^(- )?["']?(action|apiVersion|count|deprecated\w+|event|eventTime|firstTimestamp|involvedObject|items|kind|lastTimestamp|message|metadata|note|object|reason|regarding|related|reportingComponent|reportingController|reportingInstance|series|source|type|verb)["']?:( |$)`)
	yamlDash  = lazyregexp.New(`^( *)-( |$)`)
	yamlItems = lazyregexp.New(`^["']?items["']?:\s*(#.*)?$`)

	yamlKind    = lazyregexp.New(`(?m)^["']?kind["']?:\s*["']?([^\s"']+)`)
	yamlVersion = lazyregexp.New(`(?m)^["']?apiVersion["']?:\s*["']?([^\s"']+)`)
)

// beginYAML begins a document if the line looks like its first line. It also accepts lines
// that may precede a document.
func (d *Decoder) beginYAML(text []byte) bool {
	switch {
	case bytes.HasPrefix(text, []byte("---")) && (len(text) == 3 || text[3] == ' '), string(text) == "...", bytes.HasPrefix(text, []byte("%YAML")):
		d.marker = true
		return true
	case bytes.HasPrefix(text, []byte("# HELP ")), bytes.HasPrefix(text, []byte("# TYPE ")): // metrics
		return false
	case text[0] == '#':
		return true
	}
	sequence := yamlDash().Match(text) && (d.marker || bytes.HasPrefix(text, []byte("- {")))
	if !sequence && !yamlStart().Match(text) && !(d.marker && yamlKey().Match(text)) {
		return false
	}
	d.marker = false
	d.yaml = yamlDocument{on: true, begin: d.line, keys: map[string]bool{}, indent: -1}
	if yamlDash().Match(text) {
		d.yaml.items, d.yaml.sequence, d.yaml.list = true, true, &list{}
	}
	d.addYAML(text)
	return true
}

// continues reports whether a line may belong to the document.
func (y *yamlDocument) continues(text []byte) bool {
	if len(text) == 0 || bytes.IndexByte([]byte(" \t#}]"), text[0]) >= 0 {
		return true
	}
	if y.sequence || text[0] == '-' {
		return yamlDash().Match(text)
	}
	m := yamlKey().FindSubmatch(text)
	return m != nil && !y.keys[string(m[1])] // a second key of this name begins another document
}

// addYAML adds a line to the document.
func (d *Decoder) addYAML(text []byte) {
	y := &d.yaml
	if y.items {
		m := yamlDash().FindSubmatch(text)
		if m != nil && (y.indent < 0 || len(m[1]) == y.indent) {
			d.endItem()
			y.indent, y.itemLine = len(m[1]), d.line
		} else if !y.sequence && yamlKey().Match(text) {
			d.endItem()
			y.items = false
		}
	}
	if m := yamlKey().FindSubmatch(text); m != nil && !y.items {
		y.keys[string(m[1])] = true
		if yamlItems().Match(text) {
			y.items = true
			y.list = &list{kind: firstMatch(yamlKind(), y.rest), apiVersion: firstMatch(yamlVersion(), y.rest)}
			y.rest = append(y.rest, "items: []\n"...)
			return
		}
	}
	to := &y.rest
	if y.items {
		to = &y.item
	}
	*to = append(append(*to, text...), '\n')
	if len(*to) > maxValue {
		d.problems.addDamaged(y.begin, "not Events in YAML: an object is larger than 16 MiB")
		d.yaml = yamlDocument{}
		d.truncated = true
	}
}

func firstMatch(pattern *regexp.Regexp, text []byte) string {
	if m := pattern.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}

// endItem decodes the complete item.
func (d *Decoder) endItem() {
	y := &d.yaml
	defer func() { y.item = y.item[:0] }()
	if len(bytes.TrimSpace(y.item)) == 0 || y.list.excludesEvents() {
		return
	}
	text, err := yaml.YAMLToJSON(y.item)
	var items []json.RawMessage
	if err == nil {
		err = json.Unmarshal(text, &items)
	}
	if err != nil {
		d.problems.addDamaged(y.itemLine, "not an Event in YAML: %v", err)
		return
	}
	of := y.list
	if y.sequence {
		of = nil
	}
	for _, item := range items {
		if isObject(item) {
			d.decodeObject(item, of, location{line: y.itemLine})
		} else if string(item) != "null" {
			d.problems.addLine(y.itemLine, y.item)
		}
	}
}

// endYAML decodes the rest of the document.
func (d *Decoder) endYAML() {
	if !d.yaml.on {
		return
	}
	if d.yaml.items {
		d.endItem()
	}
	y := d.yaml
	d.yaml = yamlDocument{}
	if y.sequence {
		return
	}
	text, err := yaml.YAMLToJSON(y.rest)
	switch {
	case err != nil:
		d.problems.addDamaged(y.begin, "not Events in YAML: %v", err)
	case !isObject(text):
		d.problems.addLine(y.begin, y.rest)
	case y.list != nil:
		d.listEnd(text, y.list, location{line: y.begin})
	default:
		d.decodeObject(text, nil, location{line: y.begin})
	}
}
