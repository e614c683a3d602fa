"""Runs one page of the app: applies the theme, signs the reader in and shows the page."""

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app import auth, review_context, theme
from app.act_recorder import ActRecorder
from app.image_urls import ImageUrls
from app.pages import adjudication, agreement, case, drift, worklist
from app.review_context import ReviewContext
from medssl.errors import BadInput


def main() -> None:
    """Runs the page that the browser requests."""
    st.set_page_config(page_title="Review", layout="wide", initial_sidebar_state="collapsed")
    theme.apply_theme()
    config = review_context.read_config()
    reviewer = auth.require_reviewer(config)
    theme.render_header(config, reviewer)
    try:
        context = review_context.load_context(reviewer)
    except BadInput as error:
        theme.render_message("No predictions to read", str(error))
        st.stop()
    if toast := st.session_state.pop("toast", None):
        st.toast(theme.escape_markdown(toast), icon=":material/block:")
    st.navigation(build_pages(context), position="top").run()


def build_pages(context: ReviewContext) -> list[StreamlitPage]:
    """Returns the pages that the reader's role permits."""
    recorder, urls = ActRecorder.from_context(context), ImageUrls.from_context(context)
    worklist_page: StreamlitPage = st.Page(
        lambda: worklist.render_page(context, recorder, case_page), title="Worklist", default=True
    )
    case_page: StreamlitPage = st.Page(
        lambda: case.render_page(context, recorder, urls, worklist_page), title="Case", url_path="case"
    )
    agreement_page: StreamlitPage = st.Page(
        lambda: agreement.render_page(context), title="Agreement", url_path="agreement"
    )
    adjudication_page: StreamlitPage = st.Page(
        lambda: adjudication.render_page(context), title="Adjudication", url_path="adjudication"
    )
    pages = [worklist_page, case_page]
    pages += [agreement_page] * context.reviewer.has_permission("compare")
    drift_page: StreamlitPage = st.Page(lambda: drift.render_page(context), title="Drift", url_path="drift")
    return pages + [adjudication_page, drift_page] * context.reviewer.has_permission("adjudicate")


if __name__ == "__main__":
    main()
