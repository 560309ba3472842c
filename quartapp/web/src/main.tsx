import "./styles/index.css";
import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { BrowserRouter } from "react-router";
import { applyTheme, storedTheme } from "./account/theme";
import { queryClient } from "./api/queryClient";
import { App } from "./app";
import { Announcer } from "./components/Announcer";
import { spareInlineStyles } from "./components/pressable";

applyTheme(storedTheme());
spareInlineStyles();

const root = document.getElementById("root");
if (root === null) throw new Error("index.html has no #root");

createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queryClient}>
      <BrowserRouter>
        <App />
      </BrowserRouter>
      <Announcer />
    </QueryClientProvider>
  </StrictMode>,
);
