package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hindsight-events/hindsight/test/cluster"
)

// The questions of the story. In LogQL none needs a parser: they are about labels
// (cluster, namespace, reason) and structured metadata (uid, type).
//
// The scheduler may preempt a pod again before it is gone. That is a second
// state of the same Event, so pods are counted by their uid.
var (
	everything  = question{`{cluster="demo"}`, []string{"-A"}}
	preemptions = question{`{cluster="demo", reason="Preempted"}`, []string{"-A", "--reason", "Preempted"}}
	first       = question{
		`{cluster="demo", namespace="prod-metrics", reason="Preempted"}`,
		[]string{"-n", "prod-metrics", "--reason", "Preempted"},
	}
)

// about selects the Events about the pod with a uid; in LogQL only the ones of the scheduler.
func about(uid string) question {
	return question{
		fmt.Sprintf(`{cluster="demo", reason=~".*Schedul.*"} | uid="%s"`, uid),
		[]string{"-A", "-l", fmt.Sprintf(`{uid="%s"}`, uid)},
	}
}

// Counts, which only LogQL computes.
const (
	preempted   = `{cluster="demo", reason="Preempted"}`
	states      = `sum(count_over_time({cluster="demo"}[1h]))`
	byNamespace = `count by (namespace) (sum by (namespace, uid) (count_over_time(` + "\n" + indent + preempted + `[1h])))`
	perSecond   = `count(sum by (uid) (count_over_time(` + preempted + `[1s])))`
	warnings    = `topk(5, sum by (namespace, reason) (count_over_time(` + "\n" + indent +
		`{cluster="demo", namespace=~".+-metrics"} | type="Warning" [1h])))`
)

type pod struct{ namespace, name string }

func podOf(e entry) pod { return pod{e.namespace, e.name} }

// podSuffix matches the suffix that a ReplicaSet and its pods add to the name of a Deployment.
var podSuffix = regexp.MustCompile(`-[a-z0-9]+-[a-z0-9]{5}$`)

// owner is the Deployment of a pod.
func (p pod) owner() string { return p.namespace + "/" + podSuffix.ReplaceAllString(p.name, "") }

// preemption is a state of a Preempted Event, and the preemptor.
type preemption struct {
	at            time.Time
	event, podUID string // the uids of the Event and of the victim
	by, victim    pod
}

var preemptedBy = regexp.MustCompile(`^Preempted by pod (\S+) on node \S+$`)

// preemptor returns the uid of the pod that a Preempted Event names.
func preemptor(e entry) (string, error) {
	match := preemptedBy.FindStringSubmatch(e.message)
	if match == nil {
		return "", fmt.Errorf("the message does not name the preemptor: %s", e.message)
	}
	return match[1], nil
}

// tell answers the questions after an outage, from the archive and with kubectl. The archive must
// have all Events that kubectl had seen.
func (d *demo) tell(ctx context.Context, seen *ledger) error {
	if err := d.compare(ctx, seen); err != nil {
		return err
	}
	entries, err := d.archive.find(ctx, preemptions)
	if err != nil {
		return err
	}
	found, err := d.resolve(ctx, entries)
	if err != nil {
		return err
	}
	events := distinct(found, func(p preemption) string { return p.event })
	if events != seen.preempted() {
		return fmt.Errorf("kubectl saw %d Events with reason Preempted, %s finds %d", seen.preempted(), d.archive.command(preemptions), events)
	}
	if err := d.tellRemaining(ctx, seen); err != nil {
		return err
	}
	if err := d.tellBeginning(ctx); err != nil {
		return err
	}
	d.tellWho(found)
	if err := d.tellExtent(ctx, found); err != nil {
		return err
	}
	where := "in Loki"
	if d.loki == nil {
		where = "in files"
	}
	d.printf("\nChecked: each of the %d states that kubectl saw is %s, once, and so are all %d preemptions.\n",
		len(seen.states), where, events)
	return nil
}

// resolve finds the names of the preemptors in other Events about them.
func (d *demo) resolve(ctx context.Context, entries []entry) ([]preemption, error) {
	pods := make(map[string]pod) // by uid
	found := make([]preemption, 0, len(entries))
	for _, e := range entries {
		uid, err := preemptor(e)
		if err != nil {
			return nil, err
		}
		if _, known := pods[uid]; !known {
			others, err := d.archive.find(ctx, about(uid))
			if err != nil {
				return nil, err
			}
			if len(others) == 0 {
				return nil, fmt.Errorf("the preemptor has no name: %s finds nothing", d.archive.command(about(uid)))
			}
			pods[uid] = podOf(others[0])
		}
		found = append(found, preemption{
			at: e.at, event: e.state.uid, podUID: e.uid, by: pods[uid], victim: podOf(e),
		})
	}
	return found, nil
}

func (d *demo) tellRemaining(ctx context.Context, seen *ledger) error {
	d.printf("\n%s\n", strings.Repeat("═", columns))
	d.question("What does the cluster still have, and what has Hindsight kept?")
	table, err := d.kubectl(ctx, "get", "events", "-A")
	if err != nil {
		return err
	}
	now := time.Now()
	d.printQuery(everything)
	entries, err := d.archive.find(ctx, everything)
	if err != nil {
		return err
	}
	all, ofOutageToo := make(map[string]bool), make(map[string]bool)
	for _, e := range entries {
		all[e.state.uid] = true
		if ofOutage.MatchString(e.namespace) {
			ofOutageToo[e.state.uid] = true
		}
	}
	counted := len(entries)
	if d.loki != nil {
		stored, err := d.loki.Samples(ctx, states, now)
		if err != nil {
			return err
		}
		counted = sum(stored)
	}
	if counted < len(seen.states) {
		return fmt.Errorf("kubectl saw %d states, %d are counted", len(seen.states), counted)
	}
	d.line("%-42s %12s %12s", "at "+now.UTC().Format(clock)+" UTC", "kubectl", d.archive.name())
	row := func(name string, kubectl, kept any) { d.line("  %-40s %12v %12v", name, kubectl, kept) }
	row("Events", max(0, countLines(table, regexp.MustCompile(``))-1), len(all))
	row("their states, every count apart", "", counted)
	row("Events of the outage (two namespaces)", countLines(table, ofOutage), len(ofOutageToo))
	row("preemptions", countLines(table, ofPreemption), seen.preempted())
	return nil
}

func (d *demo) tellBeginning(ctx context.Context) error {
	d.question("How did it begin? The first preemptions in prod-metrics.")
	if _, err := d.kubectl(ctx, "get", "events", "-n", "prod-metrics", "--field-selector", "reason=Preempted"); err != nil {
		return err
	}
	d.printQuery(first)
	entries, err := d.archive.find(ctx, first)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s finds nothing", d.archive.command(first))
	}
	d.entries(entries, 3)

	d.question("By whom? The scheduler names a uid. Other Events about the same object name it.")
	uid, err := preemptor(entries[0])
	if err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "get", "events", "-A", "--field-selector", "involvedObject.uid="+uid); err != nil {
		return err
	}
	d.printQuery(about(uid))
	if entries, err = d.archive.find(ctx, about(uid)); err != nil {
		return err
	}
	d.entries(entries, 4)
	return nil
}

func (d *demo) tellWho(found []preemption) {
	d.question("Who preempted whom? The same two queries, for each preemption, counted by Deployment.")
	counts, seen := make(map[string]int), make(map[string]bool)
	for _, p := range found {
		if seen[p.event] {
			continue
		}
		seen[p.event] = true
		counts[fmt.Sprintf("%-27s preempted  %s", p.by.owner(), p.victim.owner())]++
	}
	pairs := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, pair := range pairs {
		d.line("%4d  %s", counts[pair], pair)
	}
}

func (d *demo) tellExtent(ctx context.Context, found []preemption) error {
	d.question("How far did it go? By namespace and by second.")
	if _, err := d.kubectl(ctx, "get", "events", "-n", "prod-metrics"); err != nil {
		return err
	}
	if d.loki == nil {
		d.printQuery(preemptions)
		d.line("%d pods of prod-metrics", distinct(found, func(p preemption) string { return p.podUID }))
		return d.tellSeconds(ctx, found)
	}
	d.logQL(byNamespace)
	counted, err := d.loki.Samples(ctx, byNamespace, time.Now())
	if err != nil {
		return err
	}
	if pods := distinct(found, func(p preemption) string { return p.podUID }); sum(counted) != pods {
		return fmt.Errorf("%d pods were preempted, %s counts %d", pods, byNamespace, sum(counted))
	}
	for _, s := range counted {
		d.line("%4.0f pods of %s", s.Value, s.Labels["namespace"])
	}

	d.logQL(perSecond + "  # step 1s")
	if err := d.tellSeconds(ctx, found); err != nil {
		return err
	}

	d.question("What followed? The Warnings, by namespace and reason.")
	d.logQL(warnings)
	if counted, err = d.loki.Samples(ctx, warnings, time.Now()); err != nil {
		return err
	}
	for _, s := range counted {
		d.line("%4.0f  %-18s %s", s.Value, s.Labels["namespace"], s.Labels["reason"])
	}
	return nil
}

// tellSeconds draws the number of preempted pods in each second, checked with Loki if there is one,
// and names the namespaces of the preemptors.
func (d *demo) tellSeconds(ctx context.Context, found []preemption) error {
	seconds := make(map[time.Time]map[string]pod) // the preemptor, by second and victim
	for _, p := range found {
		second := p.at.Truncate(time.Second)
		if seconds[second] == nil {
			seconds[second] = make(map[string]pod)
		}
		seconds[second][p.podUID] = p.by
	}
	for _, second := range slices.SortedFunc(maps.Keys(seconds), time.Time.Compare) {
		n := len(seconds[second])
		if d.loki != nil {
			// The range of a query ends at its time.
			counted, err := d.loki.Samples(ctx, perSecond, second.Add(time.Second))
			if err != nil {
				return err
			}
			if sum(counted) != n {
				return fmt.Errorf("%d pods were preempted within a second, %s counts %d", n, perSecond, sum(counted))
			}
		}
		causes := make(map[string]int)
		for _, by := range seconds[second] {
			causes[by.namespace]++
		}
		var by []string
		for _, namespace := range slices.Sorted(maps.Keys(causes)) {
			by = append(by, fmt.Sprintf("%d by %s", causes[namespace], namespace))
		}
		d.line("%s %4d  %-22s %s", second.UTC().Format(clock), n, strings.Repeat("█", (n+1)/2), strings.Join(by, ", "))
	}
	return nil
}

// distinct counts the different keys of preemptions.
func distinct(found []preemption, key func(preemption) string) int {
	keys := make(map[string]bool)
	for _, p := range found {
		keys[key(p)] = true
	}
	return len(keys)
}

func sum(samples []cluster.LokiSample) (n int) {
	for _, s := range samples {
		n += int(s.Value)
	}
	return n
}
