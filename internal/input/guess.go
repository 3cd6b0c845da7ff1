package input

import (
	"bytes"

	"github.com/hindsight-events/hindsight/internal/lazyregexp"
)

var (
	klogHeader = lazyregexp.New(`^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [^\s:]+:\d+\] `)
	logLine    = lazyregexp.New(`(?i)^\S*(\d{4}[-/]\d\d[-/]\d\d|\d\d:\d\d:\d\d)|^(level|ts|time|msg)=|\b(INFO|WARN|WARNING|ERROR|DEBUG|FATAL|TRACE)\b|^\w{3} +\d+ \d\d:\d\d:\d\d `)
	csv        = lazyregexp.New(`^[^,\s{]+(,[^,{]*){3,}$`)
	eventTable = lazyregexp.New(`^(NAMESPACE +)?LAST SEEN +(FIRST SEEN +)?(COUNT +)?`)
	described  = lazyregexp.New(`^(Name|Namespace|Events):( |$)`)
)

// guessFormat describes the likely format of a line that is not supported.
func guessFormat(line []byte) string {
	lower := bytes.ToLower(bytes.TrimSpace(line))
	switch {
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")):
		return "an HTML page, such as a login or error page"
	case bytes.HasPrefix(lower, []byte("<?xml")), bytes.HasPrefix(lower, []byte("<")):
		return "XML or HTML"
	case eventTable().Match(line):
		return "the table of kubectl; save Events with -o json or -o yaml"
	case described().Match(line):
		return "the output of kubectl describe; save Events with kubectl get events -o json"
	case bytes.HasPrefix(line, []byte("# HELP ")), bytes.HasPrefix(line, []byte("# TYPE ")):
		return "metrics"
	case bytes.HasPrefix(lower, []byte("error from server")), bytes.HasPrefix(lower, []byte("unable to connect to the server")):
		return "an error of kubectl"
	case klogHeader().Match(line), logLine().Match(line):
		return "logs of another program"
	case csv().Match(line):
		return "a table of values (CSV)"
	default:
		return "text"
	}
}
