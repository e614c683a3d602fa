// Types that the modules of the viewer share. Names in snake_case travel between Python and the browser.
import type { LabelEditor } from "./labelEditor.js";
import type { Pane } from "./pane.js";
import type { RemoteVolume } from "./volume.js";

export type Plane = "axial" | "coronal" | "sagittal";
/** Numbers along i, j and k, or right, anterior and superior; two numbers are x and y on the screen. */
export type Vector = number[];
/** First voxel, number of voxels, label. */
export type Run = [number, number, number];
export type ToolName = "navigate" | "window" | "pan" | "length" | "recist" | "brush" | "erase" | "range" | "fill";

export interface IntensityWindow {
  name: string;
  low: number;
  high: number;
}

/** The header that medssl.viewer.wire writes. */
export interface VolumeHeader {
  format: string;
  shape: Vector;
  spacing_mm: Vector;
  affine: number[][];
  oblique_degrees: number;
  letters: Record<Plane, string[]>;
  unit: string;
  dtype: string;
  slope: number;
  intercept: number;
  exact: boolean;
  slab: number;
  sha256: string;
  windows: IntensityWindow[];
  window: string;
}

export interface LabelStyle {
  name: string;
  colour: string;
  visible: boolean;
}

/** The ends of the long and the short axis of a finding, in mm RAS. */
export interface Axes {
  plane: Plane;
  long: Vector[];
  short: Vector[];
}

export interface Finding {
  id: string;
  name: string;
  label: number;
  centre_mm: Vector;
  diameter_mm?: number;
  volume_ml?: number;
  score?: number;
  kind?: "organ" | "lesion";
  /** The value of its voxels in the overlay; without it they hold the label. */
  number?: number;
  /** Regions that a reader drew for it apart from it. */
  parts?: { id: string; diameter_mm: number; volume_ml: number }[];
  decision?: string | null;
  relabelled?: number | null;
  axes?: Axes | null;
}

/** A study or a model's findings that can be shown next to the case. */
export interface ComparisonEntry {
  id: string;
  name: string;
  volume: string;
  overlay: string;
  /** Finding of this case -> the same finding on the other side. */
  pairs: Record<string, { centre_mm: Vector; text: string }>;
  /** Text for findings that have no pair. */
  unpaired_text: string;
  /** Findings that only the other side has. */
  unmatched: { centre_mm: Vector; text: string }[];
}

/** What Python passes to the component in each run of the page. */
export interface ViewerData {
  key: string;
  name?: string;
  height: number;
  unit: string;
  volume: string | null;
  overlay: string | null;
  probability: string | null;
  uncertainty: string | null;
  uncertainty_source?: string;
  labels: Record<string, LabelStyle>;
  findings: Finding[];
  selected: string | null;
  comparisons?: ComparisonEntry[];
  acked_seq: number;
  editable: boolean;
  reasons: string[];
  /** Kinds of events that Python handles. */
  handled_events: string[];
}

export interface ReviewEvent {
  kind: string;
  [field: string]: unknown;
}

export interface NumberedEvent extends ReviewEvent {
  client: string;
  seq: number;
  at: string;
}

export type SendEvents = (name: string, events: NumberedEvent[]) => void;
export type Notify = (text: string) => void;

/** A measured line between two voxels. */
export interface Line {
  plane: Plane;
  from: Vector;
  to: Vector;
  text: string;
}

/** Voxels that an interpolation would add; the reader keeps or drops them. */
export interface Proposal {
  offsets: number[];
  value: number;
}

/** Zoom of a pane, and its shift in mm. */
export interface View {
  zoom: number;
  pan: Vector;
}

/** A drag of the pointer over a pane, or a tool at the crosshair. `dx` and `dy` are device pixels from the start. */
export interface Drag {
  pane: Pane;
  index: Vector;
  dx: number;
  dy: number;
  previous: Vector;
  line?: Line;
  start?: Vector;
  window?: IntensityWindow;
  pan?: Vector;
}

/** A verdict or measurement that the server has not stored yet. */
export interface PendingVerdict {
  decision: string | null;
  label?: number;
  seq: number;
}

export interface PendingAxes {
  axes: Axes | null;
  seq: number;
}

export interface ViewerState {
  /** Address of the header of the scan that Python asks for; `volume` follows once it is opened. */
  volumeUrl: string | null;
  volume: RemoteVolume | null;
  overlay: RemoteVolume | null;
  probability: RemoteVolume | null;
  uncertainty: RemoteVolume | null;
  editor: LabelEditor | null;
  cursor: Vector;
  pointer: Vector | null;
  views: Record<Plane, View>;
  window: IntensityWindow | null;
  tool: ToolName;
  measures: Line[];
  longAxis: Line | null;
  /** A measurement that was begun with the keyboard and waits for its second end. */
  heldDrag: Drag | null;
  crosshairVisible: boolean;
  overlayVisible: boolean;
  fillVisible: boolean;
  outlineVisible: boolean;
  uncertaintyVisible: boolean;
  meshVisible: boolean;
  uncertaintySource: string;
  opacity: number;
  /** Confidence from which a voxel counts as labelled; null shows the mask as stored. */
  threshold: number | null;
  /** The label that is drawn. */
  label: number;
  radius_mm: number;
  ballBrush: boolean;
  /** Whether the outlines of rejected findings are shown. */
  rejectedVisible: boolean;
  /** Whether the measured axes of the findings are shown. */
  axesVisible: boolean;
  proposal: Proposal | null;
  brushCursor: { plane: Plane; index: Vector; radius_mm: number } | null;
  greyTable: Uint32Array;
  /** From the values of the overlay to the labels after the verdicts; a rejected finding has the label 0. */
  labelTable: Uint16Array;
  colourTable: Uint32Array;
  /** Counts the slabs that arrived, so that panes know when to read the volume again. */
  voxelVersion: number;
  /** Counts changes of the labels and of their colours. */
  overlayVersion: number;
  labels: Record<string, LabelStyle>;
  /** Colours and visibility that the reader chose here. */
  labelOverrides: Record<string, Partial<LabelStyle>>;
  findings: Finding[];
  selected: string | null;
  reasons: string[];
  editable: boolean;
  pendingVerdicts: Record<string, PendingVerdict>;
  pendingAxes: Record<string, PendingAxes>;
  comparisons: ComparisonEntry[];
  comparison: ComparisonEntry | null;
  comparisonLinked: boolean;
  unsavedEvents: number;
  lastSeq: number;
}

/** Switches that a button or a key can toggle. */
export type SwitchName =
  | "crosshairVisible"
  | "overlayVisible"
  | "fillVisible"
  | "outlineVisible"
  | "uncertaintyVisible"
  | "rejectedVisible"
  | "axesVisible"
  | "ballBrush";

/** Everything that a key or a button can do. */
export interface Commands {
  stepFinding(by: number): void;
  selectFinding(id: string): void;
  decide(decision: string): void;
  relabel(): void;
  addMissed(): void;
  undo(): void;
  redo(): void;
  interpolate(): void;
  applyPreset(number: number): void;
  setThreshold(threshold: number | null): void;
  styleLabel(number: string, change: Partial<LabelStyle>): void;
  toggle(name: SwitchName): void;
  toggleUncertainty(): void;
  toggleMesh(): void;
  toggleLink(): void;
  cycleComparison(): void;
  showComparison(id: string | null): void;
  visitUnmatched(id: string, centre_mm: Vector): void;
  selectTool(tool: ToolName): void;
  nudge(key: string): boolean;
  applyAtCursor(): void;
  scaleBrush(factor: number): void;
  scroll(by: number): void;
  turnPane(by: number): void;
  zoom(factor: number): void;
  resetView(): void;
  enlarge(): void;
  clear(): void;
  toggleHelp(): void;
  reopen(): void;
}

/** A part of the page: its node, and how it follows the state. */
export interface Panel {
  node: HTMLElement;
  update(): void;
}
