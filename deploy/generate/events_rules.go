package main

// eventAlerts are about the Events of a cluster. @job@, @cluster@, @namespace@ and @reason@ are
// parameters.
var eventAlerts = []alert{
	{
		name: "PreemptionCascade", panel: panelPreemptions, severity: "critical",
		why:     "A deployment of a higher priority preempts a few pods. More than ten of one namespace in ten minutes preempt each other.",
		summary: "{{ $value }} pods of {{ $labels.@namespace@ }} ({{ $labels.@cluster@ }}) were preempted in ten minutes.",
		expr: `sum by (@cluster@, @namespace@) (
  count_over_time({job="@job@", @reason@="Preempted"}[10m])
) > 10`,
	},
	{
		name: "CrashLoopStorm", panel: panelCrashLoops, severity: "warning", hold: "5m",
		why:     "More than five pods of a namespace in a crash loop have a common cause.",
		summary: "{{ $value }} pods of {{ $labels.@namespace@ }} ({{ $labels.@cluster@ }}) are in crash loops.",
		expr: `count by (@cluster@, @namespace@) (
  sum by (@cluster@, @namespace@, uid) (count_over_time({job="@job@", @reason@="BackOff"} |= "restarting failed container" [15m]))
) > 5`,
	},
	{
		name: "PodsUnschedulable", panel: panelScheduling, severity: "warning",
		why:     "Scheduling failed at least ten minutes ago, and no node was found since. The scheduler repeats the Event every 30 minutes, so the range is 35.",
		summary: "{{ $value }} pods of {{ $labels.@namespace@ }} ({{ $labels.@cluster@ }}) have found no node for ten minutes.",
		expr: `count by (@cluster@, @namespace@) (
  sum by (@cluster@, @namespace@, uid) (count_over_time({job="@job@", @reason@="FailedScheduling"} | kind="Pod" [35m] offset 10m))
  unless
  sum by (@cluster@, @namespace@, uid) (count_over_time({job="@job@", @reason@="Scheduled"} | kind="Pod" [45m]))
) > 0`,
	},
	{
		name: "NodeNotReady", panel: panelNodes, severity: "warning",
		why:     "One Event is enough: it is reported by the kubelet, or by the node controller after a timeout. Ten minutes keep the alert firing for a node that flaps.",
		summary: "Node {{ $labels.name }} ({{ $labels.@cluster@ }}) was not ready within the last ten minutes.",
		expr: `sum by (@cluster@, name) (
  count_over_time({job="@job@", @reason@="NodeNotReady"} | kind="Node" [10m])
) > 0`,
	},
	{
		name: "PodsEvicted", panel: panelEvictions, severity: "warning",
		why:     "A kubelet evicts when its node runs out of memory, disk or process ids. One pod is enough to look at the node.",
		summary: "Node {{ $labels.node }} ({{ $labels.@cluster@ }}) has evicted {{ $value }} pods in 15 minutes.",
		expr: `sum by (@cluster@, node) (
  count_over_time({job="@job@", @reason@="Evicted"} | kind="Pod" [15m])
) > 0`,
	},
	{
		name: "ImagePullFailures", panel: panelImages, severity: "warning", hold: "10m",
		why:     "A registry that fails once is retried. A pod that still fails after ten minutes has a wrong image, or no permission to pull it.",
		summary: "{{ $value }} pods of {{ $labels.@namespace@ }} ({{ $labels.@cluster@ }}) cannot pull an image.",
		expr: `count by (@cluster@, @namespace@) (
  sum by (@cluster@, @namespace@, uid) (count_over_time({job="@job@", @reason@=~"Failed|BackOff"} |~ "Failed to pull image|Back-off pulling image" [10m]))
) > 0`,
	},
}
