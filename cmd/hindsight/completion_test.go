package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestPluginHasTheFlagsOfQuery(t *testing.T) {
	root := &cobra.Command{Use: "hindsight"}
	asPlugin(root, "/usr/bin/hindsight", nil)
	if root.RunE != nil || root.Flags().Lookup("for") != nil {
		t.Error("hindsight without a command has the flags of query")
	}
	for _, name := range []string{"kubectl-hindsight", "/home/a/bin/kubectl-hindsight", "kubectl-hindsight.exe"} {
		root := &cobra.Command{Use: "hindsight"}
		asPlugin(root, name, nil)
		if root.RunE == nil || root.Flags().Lookup("for") == nil || root.Flags().ShorthandLookup("A") == nil {
			t.Errorf("%s lacks the flags of query", name)
		}
	}
}

// labelsLoki is a Loki with label values and one entry.
func labelsLoki(t *testing.T) string {
	labels := map[string][]string{
		"namespace": {"default", "prod", "prod-metrics"}, "reason": {"BackOff", "Failed", "FailedMount", "other"}, "cluster": {"eu"},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var data any
		if name, ok := strings.CutPrefix(r.URL.Path, "/loki/api/v1/label/"); ok {
			data = labels[strings.TrimSuffix(name, "/values")]
		} else if r.URL.Path == "/loki/api/v1/query_range" {
			end, _ := strconv.ParseInt(r.URL.Query().Get("end"), 10, 64)
			entry := []any{strconv.FormatInt(end-1, 10), "msg=m", map[string]any{"structuredMetadata": map[string]string{"kind": "CronJob", "node": "n-1", "type": "Error"}}}
			data = map[string]any{"resultType": "streams", "result": []any{map[string]any{"stream": map[string]string{}, "values": []any{entry}}}}
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Values are completed for hindsight query and for the kubectl plugin, also when kubectl calls the
// completion.
func TestCompletionOfValues(t *testing.T) {
	clearEnvironment(t)
	loki, file := labelsLoki(t), eventsFile(t)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"namespaces":         {[]string{"--loki-url", loki, "-n", "pr"}, "prod prod-metrics :4"},
		"reasons":            {[]string{"--loki-url", loki, "--reason", ""}, "BackOff Failed FailedMount :4"},
		"a second reason":    {[]string{"--loki-url", loki, "--reason", "BackOff,failed"}, "BackOff,Failed BackOff,FailedMount :4"},
		"clusters":           {[]string{"--loki-url", loki, "--cluster", ""}, "eu :4"},
		"kinds":              {[]string{"--loki-url", loki, "--for", "c"}, "cronjob/ :6"},
		"nodes":              {[]string{"--loki-url", loki, "--node", ""}, "n-1 :4"},
		"types":              {[]string{"--loki-url", loki, "--types", ""}, "Normal Warning Error :4"},
		"a second type":      {[]string{"--types", "Normal,"}, "Normal,Normal Normal,Warning :4"},
		"kinds, without":     {[]string{"--for", "networkp"}, "networkpolicy/ :6"},
		"namespaces, files'": {[]string{"--file", file, "--namespace", ""}, "default team-a :4"},
		"outputs":            {[]string{"-o", "w"}, "wide :4"},
		"Loki is down":       {[]string{"--loki-url", "http://127.0.0.1:1", "-n", ""}, ":4"},
		"behind other flags": {[]string{"--loki-url=" + loki, "-A", "--types", "Warning", "--reason=Back"}, "BackOff :4"},
	} {
		for program, words := range map[string][]string{
			"hindsight":                  {"__complete", "query"},
			"kubectl-hindsight":          {"__complete"},
			"kubectl_complete-hindsight": nil,
		} {
			t.Run(name+", "+program, func(t *testing.T) {
				var stdout, stderr bytes.Buffer
				code := executeAs(t.Context(), "/usr/bin/"+program, append(words, c.args...), strings.NewReader(""), &stdout, &stderr)
				if got := strings.Join(strings.Fields(stdout.String()), " "); code != 0 || got != c.want {
					t.Errorf("exit code %d: %s, want %s: %s", code, got, c.want, stderr.String())
				}
			})
		}
	}
}
