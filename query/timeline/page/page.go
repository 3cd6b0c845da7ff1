// Package page writes a Timeline as one HTML file that needs nothing else: it opens from disk or as
// an attachment, and makes no request.
//
// Events are hostile input. They are in a block of JSON, which no browser runs, and the scripts show
// them with textContent alone. A Content-Security-Policy allows the page's own script and style by
// their hashes, and nothing else: no network, no inline handler, no form.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/hindsight-events/hindsight/query/timeline"
)

//go:embed page.html page.css *.js
var files embed.FS

// scripts are the files of the page's one script, in the order in which they are evaluated.
var scripts = []string{"text.js", "model.js", "axis.js", "lanes.js", "pointer.js", "story.js", "details.js", "tables.js", "main.js"}

var (
	skeleton = template.Must(template.ParseFS(files, "page.html"))
	style    = string(read("page.css"))
	script   = readScript()
)

// Write writes t as an HTML page. The page holds all of t, in the form of timeline.WriteJSON.
func Write(w io.Writer, t *timeline.Timeline) error {
	data := struct {
		*timeline.Timeline
		Policy string
		Style  template.CSS
		Script template.JS
	}{t, policy(), template.CSS(style), template.JS(script)}
	if err := skeleton.ExecuteTemplate(w, "head", data); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	// Not by the template, which would hold several copies of the data.
	if _, err := io.WriteString(w, `<script type="application/json" id="data">`); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(true) // so that nothing in an Event ends the block
	if err := enc.Encode(t); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	if err := skeleton.ExecuteTemplate(w, "tail", data); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// policy returns the Content-Security-Policy. Trusted Types make the browser refuse what would parse
// a string as HTML or as a script.
func policy() string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src " + source(script),
		"style-src " + source(style),
		"base-uri 'none'",
		"form-action 'none'",
		"require-trusted-types-for 'script'",
		"trusted-types 'none'",
	}, "; ")
}

func source(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func readScript() string {
	var b bytes.Buffer
	b.WriteString("(() => {\n'use strict';\n")
	for _, name := range scripts {
		b.Write(read(name))
	}
	b.WriteString("})();\n")
	return b.String()
}

// read returns a file without carriage returns: a browser hashes what its parser made of them.
func read(name string) []byte {
	b, err := files.ReadFile(name)
	if err != nil {
		panic(err) // embedded at build time
	}
	return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
}
