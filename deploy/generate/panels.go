package main

// object is a JSON object of Grafana's dashboard schema. A test decodes the generated dashboards
// with the types of Grafana's Foundation SDK.
type object = map[string]any

// neutral is the colour of numbers that are neither good nor bad. Zero is not good either: without
// data there is nothing but zeros.
const neutral = "text"

// Bars of one pixel are invisible: 60 are some 15 pixels wide. Grafana rounds the interval to a
// round one, so that there are up to 105.
const barPoints = 60

// layout places panels from left to right, and below.
type layout struct {
	source object
	panels []object
	x, y   int
	height int // of the tallest panel in the current line
}

func (l *layout) row(id int, title string) {
	l.newline()
	l.panels = append(l.panels, object{
		"id": id, "type": "row", "title": title, "collapsed": false, "panels": []object{},
		"gridPos": object{"x": 0, "y": l.y, "w": 24, "h": 1},
	})
	l.y++
}

func (l *layout) newline() {
	l.x, l.y, l.height = 0, l.y+l.height, 0
}

// add places a panel of w of the 24 columns and h lines of 38 pixels.
func (l *layout) add(w, h int, p panel) {
	if l.x+w > 24 {
		l.newline()
	}
	for i, t := range p.targets {
		t["refId"], t["datasource"] = refID(i), l.source
	}
	defaults := object{"noValue": "none in this range"}
	for key, value := range p.defaults {
		defaults[key] = value
	}
	o := object{
		"id": p.id, "type": p.kind, "title": p.title, "description": p.description, "datasource": l.source,
		"gridPos": object{"x": l.x, "y": l.y, "w": w, "h": h}, "targets": p.targets, "options": p.options,
		"fieldConfig": object{"defaults": defaults, "overrides": append([]object{}, p.overrides...)},
		"transparent": false, "repeatDirection": "h",
	}
	if p.points > 0 {
		o["maxDataPoints"] = p.points
	}
	if p.transformations != nil {
		o["transformations"] = p.transformations
	}
	l.panels = append(l.panels, o)
	l.x, l.height = l.x+w, max(l.height, h)
}

// refID names the queries of a panel.
func refID(i int) string { return string(rune('A' + i)) }

// panel is a panel without its place. Its id is part of links and of alerts: it never changes, and
// the id of a removed panel is not used again.
type panel struct {
	id                       int
	kind, title, description string
	targets                  []object
	options, defaults        object
	overrides                []object
	points                   int // maxDataPoints
	transformations          []object
}

// number is a stat. Its title is one word, which fits into a quarter of the width.
func number(id int, title, description string, defaults object, targets ...object) panel {
	d := object{"noValue": "0", "decimals": 0, "thresholds": steps(neutral), "color": object{"mode": "thresholds"}}
	for key, value := range defaults {
		d[key] = value
	}
	// A Loki data source names a single value after its query, whatever its legend.
	mode, names := "value", []object{}
	if len(targets) > 1 {
		mode = "value_and_name"
		for i, t := range targets {
			names = append(names, object{
				"matcher":    object{"id": "byFrameRefID", "options": refID(i)},
				"properties": []object{property("displayName", t["legendFormat"])},
			})
		}
	}
	return panel{
		id: id, kind: "stat", title: title, description: description, targets: targets, defaults: d, overrides: names,
		options: object{
			"graphMode": "none", "colorMode": "value", "justifyMode": "auto", "textMode": mode, "wideLayout": true,
			"orientation": "vertical", "showPercentChange": false, "percentChangeColorMode": "standard",
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
		},
	}
}

// steps are thresholds: a colour, and then pairs of a value and the colour from there on.
func steps(base string, pairs ...any) object {
	all := []object{{"value": nil, "color": base}}
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, object{"value": pairs[i], "color": pairs[i+1]})
	}
	return object{"mode": "absolute", "steps": all}
}

// lines is a time series. With no data, or zeros, its axis ends at softMax. Grafana draws bounds,
// the thresholds above the first, as dashed lines where the axis reaches them, and does not extend
// the axis for them.
func lines(id int, title, description, unit string, softMax float64, bounds object, targets ...object) panel {
	custom := object{
		"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "axisSoftMin": 0, "axisSoftMax": softMax,
		"thresholdsStyle": object{"mode": "off"}, "axisPlacement": "auto",
	}
	defaults := object{"min": 0, "unit": unit, "custom": custom}
	if bounds != nil {
		custom["thresholdsStyle"] = object{"mode": "dashed"}
		defaults["thresholds"] = bounds
		defaults["color"] = object{"mode": "palette-classic"}
	}
	return panel{
		id: id, kind: "timeseries", title: title, description: description, targets: targets, defaults: defaults,
		options: object{
			"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
			"tooltip": object{"mode": "multi", "sort": "desc", "hideZeros": true},
		},
	}
}

// bars are counts per interval, stacked.
func bars(id int, title, description string, targets ...object) panel {
	p := lines(id, title, description, "short", 3, nil, targets...)
	p.points = barPoints
	p.defaults["decimals"] = 0
	custom := p.defaults["custom"].(object)
	custom["drawStyle"], custom["fillOpacity"], custom["lineWidth"] = "bars", 80, 0
	custom["barAlignment"], custom["barWidthFactor"] = 0, 0.9
	custom["stacking"] = object{"mode": "normal", "group": "A"}
	return p
}

// totalled has a table with the sum of each series beside it, of a width in pixels.
func totalled(p panel, width int) panel {
	p.options["legend"] = object{
		"displayMode": "table", "placement": "right", "showLegend": true, "calcs": []string{"sum"},
		"sortBy": "Total", "sortDesc": true, "width": width,
	}
	return p
}

// linked adds a link to the values of a panel.
func linked(p panel, title, url string) panel {
	links, _ := p.defaults["links"].([]object)
	p.defaults["links"] = append(links, link(title, url))
	return p
}

func link(title, url string) object {
	return object{"title": title, "url": url, "targetBlank": false}
}

// byName overrides the field of a name.
func byName(name string, properties ...object) object {
	return object{"matcher": object{"id": "byName", "options": name}, "properties": properties}
}

func property(id string, value any) object { return object{"id": id, "value": value} }

// texts maps values to texts and colours: triples of a value, a text and a colour.
func texts(triples ...string) object {
	options := object{}
	for i := 0; i < len(triples); i += 3 {
		options[triples[i]] = object{"text": triples[i+1], "color": triples[i+2], "index": i / 3}
	}
	return object{"type": "value", "options": options}
}

// missing is what is shown instead of no value.
func missing(text, color string) object {
	return object{"type": "special", "options": object{"match": "null", "result": object{"text": text, "color": color}}}
}

func query(expr, legend, queryType string) object {
	return object{"expr": expr, "legendFormat": legend, "queryType": queryType}
}

// dashboard returns a whole dashboard. Identifiers of a Grafana are not in it: it can be imported
// anywhere.
func dashboard(uid, title, description string, l *layout, variables, annotations, links []object) object {
	return object{
		"uid": uid, "title": title, "description": description, "tags": []string{"kubernetes", "events", "hindsight"},
		"time": object{"from": "now-6h", "to": "now"}, "timezone": "browser", "refresh": "1m",
		"editable": true, "graphTooltip": 1, "fiscalYearStartMonth": 0, "schemaVersion": 39,
		"templating": object{"list": variables}, "annotations": object{"list": annotations},
		"links": links, "panels": l.panels,
	}
}

// source is the variable for the data source, so that a dashboard is bound to none.
func source(kind string) object {
	return object{"type": "datasource", "name": kind, "label": "Data source", "query": kind, "refresh": 1, "regex": "", "multi": false, "includeAll": false}
}

// choice is a variable with several values.
func choice(kind, name, description, all string, query any, current object) object {
	v := object{
		"type": kind, "name": name, "description": description, "query": query,
		"multi": true, "includeAll": all != "", "allValue": all, "current": current,
	}
	if all == "" {
		delete(v, "allValue")
	}
	return v
}

var everything = object{"selected": true, "text": "All", "value": "$__all"}

func one(value string) object {
	return object{"selected": true, "text": value, "value": value}
}

// input is a variable of free text.
func input(name, description, value string) object {
	return object{"type": "textbox", "name": name, "description": description, "query": value, "current": one(value)}
}
