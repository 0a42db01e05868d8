// A list of runs or teachers.

import { keep } from "./refresh.js";

keep(() => {});
