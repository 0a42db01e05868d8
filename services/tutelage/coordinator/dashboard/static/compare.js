// Two runs over one another: looked at again every few seconds, as a list is.

import { draw } from "./charts.js";
import { keep } from "./refresh.js";

const show = (page) => draw(JSON.parse(page.getElementById("series").textContent));

show(document);
keep(show);
