package main

import (
	"context"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/query"
)

const (
	// completionTimeout bounds the time for a completion.
	completionTimeout = 3 * time.Second

	// completionRange is the age of the oldest values.
	completionRange = 7 * 24 * time.Hour
)

// addCompletions completes the values of flags from known and stored values.
func addCompletions(cmd *cobra.Command, q *selectionFlags, outputs []string) {
	register := func(flag string, list bool, values func(cmd *cobra.Command) []string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
			directive := cobra.ShellCompDirectiveNoFileComp
			before, last := "", text
			if i := strings.LastIndexByte(text, ','); list && i >= 0 {
				before, last = text[:i+1], text[i+1:]
			}
			var completed []string
			for _, v := range values(cmd) {
				if strings.HasPrefix(strings.ToLower(v), strings.ToLower(last)) {
					completed = append(completed, before+v)
				}
				if strings.HasSuffix(v, "/") {
					directive |= cobra.ShellCompDirectiveNoSpace
				}
			}
			return completed, directive
		})
	}
	fixed := func(values ...string) func(*cobra.Command) []string {
		return func(*cobra.Command) []string { return values }
	}
	stored := func(f event.Field) func(*cobra.Command) []string {
		return func(cmd *cobra.Command) []string { return q.storedValues(cmd.Context(), f) }
	}
	register("output", false, fixed(outputs...))
	register("namespace", false, stored(event.FieldNamespace))
	register("node", false, stored(event.FieldNode))
	register("reason", true, stored(event.FieldReason))
	register("cluster", false, q.storedClusters)
	register("types", true, func(cmd *cobra.Command) []string {
		return union([]string{"Normal", "Warning"}, q.storedValues(cmd.Context(), event.FieldType))
	})
	register("for", false, func(cmd *cobra.Command) []string {
		kinds := q.storedValues(cmd.Context(), event.FieldKind)
		if len(kinds) == 0 {
			kinds = query.Kinds()
		}
		for i, k := range kinds {
			kinds[i] = strings.ToLower(k) + "/"
		}
		return kinds
	})
}

// union returns a and the values of b that are not in a.
func union(a, b []string) []string {
	seen := map[string]bool{}
	for _, v := range a {
		seen[v] = true
	}
	for _, v := range b {
		if !seen[v] {
			a = append(a, v)
		}
	}
	return a
}

// storedValues returns the values of a field in the source that the flags name. Errors are ignored:
// a completion cannot show them.
func (q *selectionFlags) storedValues(ctx context.Context, f event.Field) []string {
	q.filter = query.Filter{} // the flags may be incomplete
	_, source, _, err := q.open(false)
	if err != nil {
		return nil
	}
	if c, ok := source.(io.Closer); ok {
		defer c.Close()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	s, ok := source.(interface {
		Values(ctx context.Context, f event.Field, from, to time.Time) ([]string, error)
	})
	if !ok {
		return nil
	}
	now := time.Now()
	values, _ := s.Values(ctx, f, now.Add(-completionRange), now)
	return values
}

// storedClusters is storedValues for the label cluster, which is not a field.
func (q *selectionFlags) storedClusters(cmd *cobra.Command) []string {
	q.filter = query.Filter{}
	_, source, _, err := q.open(false)
	l, ok := source.(*query.Loki)
	if err != nil || !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	now := time.Now()
	values, _ := l.Client.LabelValues(ctx, "cluster", (&query.Selection{}).Streams(l.Layout), now.Add(-completionRange), now)
	return values
}
