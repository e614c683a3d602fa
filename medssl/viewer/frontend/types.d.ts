// Types that the modules of the viewer share. Names in snake_case travel between Python and the browser.
import type { LabelEditor } from "./labelEditor.js";
import type { Pane } from "./pane.js";
import type { RemoteVolume } from "./volume.js";

export type Plane = "axial" | "coronal" | "sagittal";
/** Numbers along i, j and k, or right, anterior and superior; two numbers are x and y on the screen. */
export type Vector = number[];
/** First voxel, number of voxels, label. */
export type Run = [number, number, number];
export type MeasureToolName = "length" | "recist" | "angle" | "arrow" | "ellipse" | "freehand" | "sphere";
export type DrawingToolName = "brush" | "erase" | "range" | "fill" | "scissors" | "assist";
export type ToolName = "navigate" | "window" | "pan" | MeasureToolName | DrawingToolName;
/** A change of the whole mask of a finding. */
export type MaskEditName = "grow" | "shrink" | "smooth" | "holes" | "islands";

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
  /** Name of the window that shows it best. */
  window?: string;
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
  /** The axes of the mask in an axial plane. */
  long_axis_mm?: number | null;
  short_axis_mm?: number | null;
  score?: number;
  kind?: "organ" | "lesion";
  source?: "mask" | "box" | "reader";
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
  /** Null for a sequence, which shares the mask of the case. */
  overlay: string | null;
  /** Whether it is another sequence of this case, on the same grid. */
  isSequence?: boolean;
  /** Whether it is a PET, which lies on the image in a hot scale. */
  isHot?: boolean;
  /** Finding of this case -> the same finding on the other side. */
  pairs: Record<string, { centre_mm: Vector; text: string }>;
  /** Text for findings that have no pair. */
  unpaired_text: string;
  /** Findings that only the other side has. */
  unmatched: { centre_mm: Vector; text: string }[];
}

/** An event that the server refused, and why. */
export interface Refusal {
  id: string;
  reason: string;
}

/** What the server says about the events that were sent last, by their identity. */
export interface Answer {
  acked: string[];
  refused: Refusal | null;
}

/** The state of the whole case, and what the reader may do with it. */
export interface CaseStatus {
  signed_at: string | null;
  /** Why this reader may not sign at all; empty if they may. */
  sign_obstacle: string;
  has_next: boolean;
  may_deliver: boolean;
  export_formats: string;
  download_url: string;
}

/** What Python passes to the component in each run of the page. */
export interface ViewerData extends Answer {
  key: string;
  name?: string;
  /** What is known about the series, a line each: modality and sequence, acquisition, date. */
  facts?: string[];
  instances?: Instances | null;
  /** Height in CSS pixels; null fills the rest of the browser window. */
  height: number | null;
  unit: string;
  volume: string | null;
  overlay: string | null;
  probability: string | null;
  uncertainty: string | null;
  uncertainty_source?: string;
  /** Address that proposes masks for clicks; null offers none. */
  assist?: string | null;
  labels: Record<string, LabelStyle>;
  findings: Finding[];
  selected: string | null;
  comparisons?: ComparisonEntry[];
  /** Identity of the reader, the same for all predictions. */
  reader?: string;
  /** Identity of the server's session, which a restart of the server changes. */
  session?: string;
  /** Strokes that `overlay` contains, in order, as identities of events. */
  drawn: string[];
  /** Events of this reader that can be taken back. */
  undoable: string[];
  /** The state of the whole case; null hides the acts on it. */
  case?: CaseStatus | null;
  /** Seconds between two reports that the reader is at work; 0 reports nothing. */
  alive_s?: number;
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

export type SendTrigger = (name: string, value: unknown) => void;
export type Notify = (text: string) => void;

/** A measurement between two voxels: a length, or the shape with these ends. */
export interface Line {
  plane: Plane;
  from: Vector;
  to: Vector;
  text: string;
  shape?: "arrow" | "angle" | "ellipse" | "freehand" | "sphere";
  /** The outline drawn by hand, or the ends of the arms of an angle. */
  points?: Vector[];
}

/** Voxels that an interpolation would add; the reader keeps or drops them. */
export interface Proposal {
  offsets: number[];
  value: number;
}

/** Clicks of a reader, and how the proposal that follows them would change the mask. */
export interface AssistProposal {
  /** Voxels that were marked as inside, and as outside, in order. */
  inside: number[];
  outside: number[];
  added: number[];
  removed: number[];
  /** The value of the voxels of the finding. */
  value: number;
  /** Whether a proposal is awaited. */
  isBusy: boolean;
  /** The tool that made the proposal, and its version. */
  engine: string;
  version: string;
}

/** How the slices around the crosshair are joined to one picture. */
export interface Projection {
  kind: "none" | "MIP" | "MinIP" | "mean";
  slab_mm: number;
}

/** How the list of findings is ordered; `label` shows the findings of one label only. */
export interface ListSettings {
  sort: "given" | "size" | "score" | "head";
  label: number | null;
  isGrouped: boolean;
}

/** Another sequence in place of the image of the case. */
export interface ImageLayer {
  name: string;
  volume: RemoteVolume;
  window: IntensityWindow | null;
  greyTable: Uint32Array;
  /** The colours of a PET that lies on the image; null for a sequence in place of it. */
  hotTable: Uint32Array | null;
}

/** The numbers of the slices in the archive, along an axis of the RAS grid. */
export interface Instances {
  axis: number;
  numbers: number[];
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
  /** Whether Ctrl was held when the drag began. */
  isModified?: boolean;
  line?: Line;
  start?: Vector;
  window?: IntensityWindow;
  pan?: Vector;
}

/** A verdict or measurement that the server has not stored yet. */
export interface PendingVerdict {
  decision: string | null;
  label?: number;
}

export interface PendingAxes {
  axes: Axes | null;
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
  facts: string[];
  instances: Instances | null;
  projection: Projection;
  /** The label that is drawn. */
  label: number;
  radius_mm: number;
  /** By how much a mask grows, shrinks or is smoothed. */
  margin_mm: number;
  /** The values that the range brush paints; null for those of the window. */
  range: { low: number; high: number } | null;
  ballBrush: boolean;
  /** Whether the image is smoothed between its voxels. */
  smoothed: boolean;
  /** Whether the outlines of rejected findings are shown. */
  rejectedVisible: boolean;
  /** Whether the measured axes of the findings are shown. */
  axesVisible: boolean;
  proposal: Proposal | null;
  assist: AssistProposal | null;
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
  list: ListSettings;
  reasons: string[];
  editable: boolean;
  pendingVerdicts: Record<string, PendingVerdict>;
  pendingAxes: Record<string, PendingAxes>;
  comparisons: ComparisonEntry[];
  comparison: ComparisonEntry | null;
  comparisonLinked: boolean;
  /** Whether the sequence that is compared lies in place of the image, and not beside it. */
  comparisonLayered: boolean;
  layer: ImageLayer | null;
  /** How many acts wait for the server. */
  unsavedEvents: number;
  /** Whether the reader has done anything here that is stored or waits. */
  hasActed: boolean;
  /** Whether the browser keeps what waits over a closed tab. */
  isKept: boolean;
  waitingKinds: string[];
  refused: { event: NumberedEvent; reason: string } | null;
  canUndo: boolean;
  /** Strokes that the mask on the screen contains, in order. */
  drawn: string[];
  /** Whether the mask on the screen is the stored one, or will be once everything that waits is stored. */
  isMaskCurrent: boolean;
  /** Whether a stroke is being taken back that the screen still shows. */
  isMaskUndone: boolean;
  caseStatus: CaseStatus | null;
  /** Whether the reader has the case open in another window of this browser. */
  hasSibling: boolean;
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
  | "smoothed"
  | "ballBrush";

/** Everything that a key or a button can do. */
export interface Commands {
  stepFinding(by: number): void;
  selectFinding(id: string): void;
  decide(decision: string): void;
  acceptAll(label: number): void;
  relabel(): void;
  addMissed(): void;
  undo(): void;
  redo(): void;
  sign(): void;
  reopenReading(): void;
  deliver(): void;
  nextCase(): void;
  retryRefused(): void;
  discardRefused(): void;
  interpolate(): void;
  editMask(name: MaskEditName): void;
  copySlice(by: number): void;
  project(kind: Projection["kind"]): void;
  cycleProjection(): void;
  applyPreset(number: number): void;
  setThreshold(threshold: number | null): void;
  styleLabel(number: string, change: Partial<LabelStyle>): void;
  toggle(name: SwitchName): void;
  toggleUncertainty(): void;
  toggleMesh(): void;
  toggleLink(): void;
  cycleLayer(): void;
  cycleComparison(): void;
  showComparison(id: string | null): void;
  visitUnmatched(id: string, centre_mm: Vector): void;
  selectTool(tool: ToolName): void;
  nudge(key: string): boolean;
  applyAtCursor(isModified?: boolean): void;
  acceptProposal(): void;
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
