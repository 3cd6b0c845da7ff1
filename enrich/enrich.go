// Package enrich adds to Events whose they are: the workload of the object that an Event is about,
// and labels and annotations of the object and of its namespace.
//
//	API server ─ metadata of Pods, ReplicaSets, … ─► store, by uid
//	                                                   │
//	records of one batch ─► Enricher.Apply ◄─ lookup ──┘
//	                              └─► records with Attributes
//
// No request is made for an Event about an object of a watched kind. Deleted objects stay in the
// store for a while, so that Events about a pod that is gone have its workload, too. Attributes are
// decided once, at intake, and journaled.
package enrich

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"

	"github.com/hindsight-events/hindsight/event"
)

// Options configure an Enricher.
type Options struct {
	Config     Config
	Client     metadata.Interface
	Namespaces []string // that are watched; empty: all

	Metrics *Metrics     // may be nil
	Logger  *slog.Logger // may be nil
}

// Enricher adds attributes to records. Its methods may be called concurrently.
type Enricher struct {
	config    Config
	store     *store
	object    extractor // of the object that an Event is about
	namespace extractor
	watches   []*reflection
	reader    *reader // nil unless labels or annotations are wanted
	metrics   *Metrics
	log       *slog.Logger
	count     int // of the fields

	mu          sync.Mutex      // guards the rest
	workloads   map[string]bool // kinds that are a workload themselves
	waitedFor   map[key]bool    // objects for which a batch waited in vain; bounded
	vainWaits   int             // in a row
	pausedUntil time.Time
}

// New returns an Enricher. It makes no request before Run.
func New(o Options) *Enricher {
	c := o.Config
	e := &Enricher{
		config:    c,
		store:     newStore(time.Duration(c.KeepDeleted)),
		object:    newExtractor(c.Labels, c.Annotations),
		namespace: newExtractor(c.NamespaceLabels, nil),
		count:     len(c.Names()),
		metrics:   cmp.Or(o.Metrics, NewMetrics(nil)),
		log:       o.Logger,
		workloads: map[string]bool{"Deployment": true, "StatefulSet": true, "DaemonSet": true, "CronJob": true, "ReplicationController": true},
		waitedFor: make(map[key]bool),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	ofObjects := len(e.object.names) > 0
	for i, r := range resources {
		in := o.Namespaces
		switch {
		case r.kind == kindNamespace && len(e.namespace.names) == 0,
			r.kind == kindNode && !ofObjects,
			r.namespaced && !ofObjects && !c.Workload:
			continue
		case !r.namespaced || len(in) == 0:
			in = []string{metav1.NamespaceAll}
		}
		for _, namespace := range in {
			e.watches = append(e.watches, &reflection{
				resource: r, number: uint16(len(e.watches)), client: o.Client.Resource(resources[i].GroupVersionResource).Namespace(namespace),
				store: e.store, extract: e.extractObject, metrics: e.metrics, log: e.log, synced: make(chan struct{}),
			})
		}
	}
	e.metrics.begin(e.watches)
	if ofObjects {
		e.reader = newReader(e, o.Client)
	}
	return e
}

// Run keeps the store up to date until ctx ends.
func (e *Enricher) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	for _, w := range e.watches {
		group.Go(func() { w.run(ctx) })
	}
	if e.reader != nil {
		group.Go(func() { e.reader.run(ctx) })
	}
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			e.store.removeDeleted(now)
			e.mu.Lock()
			clear(e.waitedFor) // some may have appeared
			e.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// WaitFilled waits until the store has all objects, at most until ctx ends. It returns the problems
// of the resources that are missing.
func (e *Enricher) WaitFilled(ctx context.Context) error {
	for _, w := range e.watches {
		select {
		case <-w.synced:
		case <-ctx.Done():
			return cmp.Or(e.Problem(), context.Cause(ctx))
		}
	}
	return nil
}

// Objects returns the number of objects in the store, deleted ones included.
func (e *Enricher) Objects() int { return e.store.count() }

// Problem returns the problems that keep the store from being complete, nil if there are none.
func (e *Enricher) Problem() error {
	var problems []error
	for _, w := range e.watches {
		if err := w.problem(); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// extractObject returns what is stored of an object, and its names beside the uid.
func (e *Enricher) extractObject(kind string, o *metav1.PartialObjectMetadata) (p properties, names []name) {
	if c := metav1.GetControllerOfNoCopy(o); c != nil {
		p.owner = owner{uid: string(c.UID), kind: c.Kind, name: c.Name}
		e.addWorkloadKind(c.Kind)
	}
	if kind == kindNamespace {
		p.values = e.namespace.encode(o.Labels, nil)
	} else {
		p.values = e.object.encode(o.Labels, o.Annotations)
	}
	switch kind {
	case kindNamespace, kindNode: // kubelets write the name of their Node as its uid, or none
		names = append(names, name{kind, o.Name})
	case kindPod:
		// Events of a kubelet about a static pod have the hash of its manifest as the uid.
		if hash := o.Annotations[staticPodHash]; hash != "" {
			names = append(names, name{kindPod, hash})
		}
	}
	return p, names
}

// staticPodHash is the annotation of a mirror pod that has the uid of its static pod:
// https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/types/pod_update.go
const staticPodHash = "kubernetes.io/config.hash"

// addWorkloadKind learns that objects of a kind own others.
func (e *Enricher) addWorkloadKind(kind string) {
	if kind == kindReplicaSet || kind == kindJob || kind == kindNode {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.workloads[kind] = true
}

func (e *Enricher) isWorkload(kind string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.workloads[kind]
}

// Apply adds Attributes to the records of one batch. It waits once, at most Config.Wait, for
// the metadata of objects that the store should have and does not have yet. Records of a list never
// wait. If ctx ends, the remaining records have the attributes that are known.
func (e *Enricher) Apply(ctx context.Context, records []event.Record) {
	var incomplete []int
	var awaited []key
	for i := range records {
		r := &records[i]
		if r.PositionOnly() || r.Gap {
			continue
		}
		l := e.lookUp(r.Event)
		r.Attributes = l.attributes
		if l.missing == (key{}) {
			continue
		}
		if r.Position.ListVersion == 0 && !e.waitedInVain(l.missing) {
			incomplete, awaited = append(incomplete, i), append(awaited, l.missing)
		} else {
			e.metrics.misses.WithLabelValues(l.reason).Inc()
		}
	}
	if len(incomplete) == 0 {
		return
	}
	e.wait(ctx, awaited)
	for _, i := range incomplete {
		l := e.lookUp(records[i].Event)
		records[i].Attributes = l.attributes
		if l.missing != (key{}) {
			e.metrics.misses.WithLabelValues(l.reason).Inc()
			e.rememberMissing(l.missing)
		}
	}
}

const (
	// After maxVainWaits in a row, no batch waits for pauseFactor times Config.Wait. Otherwise
	// Events about ever new objects that do not exist would slow down all others.
	maxVainWaits = 3
	pauseFactor  = 10
)

// wait returns when the store has all keys, at the latest after Config.Wait.
func (e *Enricher) wait(ctx context.Context, keys []key) {
	begin := time.Now()
	e.mu.Lock()
	paused := begin.Before(e.pausedUntil)
	e.mu.Unlock()
	if paused {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(e.config.Wait))
	defer cancel()
	for _, k := range keys {
		stored := e.store.stored(k)
		if stored == nil {
			continue
		}
		select {
		case <-stored:
		case <-ctx.Done():
			e.store.giveUp(k)
		}
	}
	e.metrics.waited.Add(time.Since(begin).Seconds())
	e.mu.Lock()
	defer e.mu.Unlock()
	if ctx.Err() == nil {
		e.vainWaits = 0
		return
	}
	if e.vainWaits++; e.vainWaits >= maxVainWaits {
		e.pausedUntil = time.Now().Add(pauseFactor * time.Duration(e.config.Wait))
	}
}

// maxWaitedFor bounds the objects that are remembered as missing.
const maxWaitedFor = 10_000

func (e *Enricher) waitedInVain(k key) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.waitedFor[k]
}

func (e *Enricher) rememberMissing(k key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.waitedFor) >= maxWaitedFor {
		clear(e.waitedFor)
	}
	e.waitedFor[k] = true
}

// lookup is the result of lookUp.
type lookup struct {
	attributes []event.Pair // sorted by name
	missing    key          // an object that the store should have; zero: none
	reason     string       // of missing
}

// Reasons for which an attribute is missing, the values of the label reason.
const (
	missUnknown = "unknown"       // no object has the uid, or not yet
	missOwner   = "unknown_owner" // the owner of the object is unknown
	missNoUID   = "no_uid"        // the Event has no uid
)

// lookUp returns the attributes of an Event.
func (e *Enricher) lookUp(ev *corev1.Event) (l lookup) {
	o := &ev.InvolvedObject
	l.attributes = make([]event.Pair, 0, e.count)
	if len(e.namespace.names) > 0 && o.Namespace != "" {
		if p, ok := e.store.named(name{kindNamespace, o.Namespace}); ok {
			l.attributes = e.namespace.append(l.attributes, p.values)
		} else {
			l.missing, l.reason = name{kindNamespace, o.Namespace}.key(), missUnknown
		}
	}
	e.addObject(&l, o)
	slices.SortFunc(l.attributes, func(a, b event.Pair) int { return strings.Compare(a.Name, b.Name) })
	return l
}

// addObject adds the attributes of the object that an Event is about.
func (e *Enricher) addObject(l *lookup, o *corev1.ObjectReference) {
	watched := slices.ContainsFunc(e.watches, func(w *reflection) bool { return w.kind == o.Kind && o.Kind != kindNamespace })
	if !watched && e.reader == nil {
		if e.config.Workload && e.isWorkload(o.Kind) {
			l.addWorkload(o.Kind, o.Name)
		}
		return
	}
	k := uidKey(string(o.UID))
	p, known := properties{}, false
	if o.UID != "" {
		p, known = e.store.get(k)
	}
	switch {
	case known:
	case o.Kind == kindNode:
		k = name{kindNode, o.Name}.key()
		p, known = e.store.named(name{kindNode, o.Name})
	case o.Kind == kindPod:
		p, known = e.store.named(name{kindPod, string(o.UID)})
	}
	switch {
	case known:
		l.attributes = e.object.append(l.attributes, p.values)
	case o.UID == "" && o.Kind != kindNode:
		l.reason = missNoUID
		return
	default:
		l.missing, l.reason = k, missUnknown
		if !watched {
			e.reader.read(k, o)
		}
	}
	if e.config.Workload && (known || !watched) {
		e.resolveWorkload(l, o, p.owner)
	}
}

// resolveWorkload adds the controller at the top: it follows the owners of Pods, ReplicaSets and
// Jobs. Any other owner is the top.
func (e *Enricher) resolveWorkload(l *lookup, o *corev1.ObjectReference, first owner) {
	switch o.Kind {
	case kindPod, kindReplicaSet, kindJob:
	default:
		if e.isWorkload(o.Kind) {
			l.addWorkload(o.Kind, o.Name)
		}
		return
	}
	top := owner{uid: string(o.UID), kind: o.Kind, name: o.Name}
	next := first
	for next.kind != "" && next.kind != kindNode { // the owner of a mirror pod is its Node
		top = next
		if top.kind != kindReplicaSet && top.kind != kindJob {
			break
		}
		p, ok := e.store.get(uidKey(top.uid))
		if !ok {
			l.missing, l.reason = uidKey(top.uid), missOwner
			return
		}
		next = p.owner
	}
	l.addWorkload(top.kind, top.name)
}

func (l *lookup) addWorkload(kind, name string) {
	l.attributes = append(l.attributes, event.Pair{Name: WorkloadKind, Value: kind}, event.Pair{Name: WorkloadName, Value: name})
}
