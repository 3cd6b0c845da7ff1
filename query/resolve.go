package query

import (
	"context"
	"time"

	"github.com/hindsight-events/hindsight/event"
	"github.com/hindsight-events/hindsight/event/format"
	"github.com/hindsight-events/hindsight/query/objects"
)

// Resolver is a Printer that names the objects whose uids are in messages, as that of the preemptor in
// "Preempted by pod <uid>". It looks up the names in other Events of the source, also of other
// namespaces; a uid that no Event is about remains. It holds up to resolveRows rows.
type Resolver struct {
	Printer Printer // prints the rows
	// Beside adds names in parentheses; otherwise they replace the uids.
	Beside bool

	// Open returns the Source of a Selection. It is called while the rows are read, so that Files must
	// not be those of the rows.
	Open      func(*Selection) Source
	Parser    format.Parser
	Selection *Selection // of the rows; its labels, such as cluster, are those of the lookups

	// Context ends lookups. It is here because a Printer has none.
	Context context.Context

	graph    *objects.Graph
	lookedUp map[string]bool
	rows     []format.Record
	err      error

	readFiles bool
}

const (
	resolveRows = 500

	// An object has Events up to lookBefore before a message that has its uid, and up to lookAfter
	// after it: a preemptor waits for its node, and is bound to it soon after.
	lookBefore = time.Hour
	lookAfter  = 10 * time.Minute

	// maxLookedUp bounds the memory for uids that were looked up.
	maxLookedUp = 1 << 17
)

// Print implements Printer. It prints rows that need no lookup without delay, as long as none waits.
func (p *Resolver) Print(r *format.Record) error {
	if p.graph == nil {
		p.graph, p.lookedUp = objects.NewGraph(), map[string]bool{}
	}
	p.graph.Observe(r)
	p.rows = append(p.rows, *r)
	if len(p.rows) < resolveRows {
		return nil
	}
	return p.resolve()
}

// Flush implements Printer.
func (p *Resolver) Flush() error {
	if err := p.resolve(); err != nil {
		return err
	}
	return p.Printer.Flush()
}

// resolve prints the rows.
func (p *Resolver) resolve() error {
	if p.err == nil {
		p.err = p.lookUp()
	}
	rows := p.rows
	p.rows = p.rows[:0]
	if p.err != nil {
		return p.err
	}
	for i := range rows {
		r := &rows[i]
		resolve := p.graph.Resolve
		if p.Beside {
			resolve = p.graph.Annotate
		}
		if text, named := resolve(r.Event.Message); len(named) > 0 {
			e := *r.Event
			e.Message = text
			r.Event = &e
		}
		if err := p.Printer.Print(r); err != nil {
			return err
		}
	}
	return nil
}

// lookUp reads Events about the objects whose uids are in the messages of the rows. Of files, it reads
// all Events the first time, as far as a Graph holds their objects.
func (p *Resolver) lookUp() error {
	if files, ok := p.Open(p.Selection).(Files); ok {
		if p.readFiles {
			return nil
		}
		p.readFiles = true
		return files.Files.Range(p.Context, time.Time{}, func(e format.Entry) error {
			p.graph.Observe(e.Record)
			return nil
		})
	}
	var (
		uids     []string
		from, to time.Time
	)
	read := func() error {
		if len(uids) == 0 {
			return nil
		}
		s := p.Selection.Scope().WithAny(event.FieldUID, uids...)
		uids = nil
		return p.Open(s).Range(p.Context, from.Add(-lookBefore), to.Add(lookAfter), func(e format.Entry) error {
			if r, err := p.Parser.Parse(e); err == nil && s.Match(&r) {
				p.graph.Observe(&r)
			}
			return nil
		})
	}
	for i := range p.rows {
		r := &p.rows[i]
		for _, uid := range objects.UIDs(r.Event.Message) {
			if _, known := p.graph.Named(uid); known || p.lookedUp[uid] || len(p.lookedUp) >= maxLookedUp {
				continue
			}
			if len(uids) == maxUIDs || len(uids) > 0 && r.Time.Sub(from) > lookBefore {
				if err := read(); err != nil {
					return err
				}
			}
			if len(uids) == 0 {
				from = r.Time
			}
			to, uids = r.Time, append(uids, uid)
			p.lookedUp[uid] = true
		}
	}
	return read()
}
